//! A plugin that is the host's own child.

use std::io;
use std::process::Command;
use std::task::{Context, Poll, ready};

use rustix::process::Signal;

use super::instance::Keeper;
use super::process::{Process, Watch};
use super::spawn::{self, Pipes};
use crate::error_kind::ErrorKind;
use crate::transport::Exit;

/// A child whose group is killed with it. Dropping it kills and reaps.
pub(super) struct Child(Process);

/// A child that is watched by the runtime.
pub(super) struct WatchedChild {
    child: Child,
    exited: Watch,
    killed: bool,
}

/// Spawns `command` as a child of this process.
///
/// # Cancel safety
///
/// When the future is dropped, a child that was spawned for it is killed.
pub(super) async fn spawn(mut command: Command) -> io::Result<(Child, Pipes)> {
    spawn::on_spawner(move || {
        let (process, pipes) = spawn::piped(spawn::plugin(&mut command))?;
        Ok((Child(process), pipes))
    })
    .await
}

impl Child {
    /// Begins to watch for the end. Must be called inside a tokio runtime.
    pub(super) fn watched(self) -> io::Result<WatchedChild> {
        Ok(WatchedChild {
            exited: self.0.watch()?,
            child: self,
            killed: false,
        })
    }

    fn kill(&self) {
        // By itself too: it may have moved to another group.
        self.0.signal(Signal::KILL);
        self.0.kill_group();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Keeper for WatchedChild {
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        let process = &mut self.child.0;
        ready!(self.exited.poll_exited(cx, process));
        process.kill_group();
        Poll::Ready(match process.reap() {
            Some(ended) => ended.exit(self.killed),
            None => Exit::failed(ErrorKind::Crash, "exit status unknown"),
        })
    }

    fn is_exiting(&self) -> bool {
        self.child.0.is_exiting()
    }

    /// Is ready at once: of those that have left the group nothing is known.
    fn poll_reaped(&mut self, _: &mut Context<'_>) -> Poll<bool> {
        Poll::Ready(true)
    }

    fn kill(&mut self) {
        self.killed = true;
        self.child.kill();
    }
}
