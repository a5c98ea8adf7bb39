//! A native plugin without a guard: a child of the host.

use std::io;
use std::process::Command;
use std::task::{Context, Poll, ready};

use super::pipes::{Pipes, StderrReader};
use super::process::{Process, describe_exit};
use super::spawn;
use crate::error_kind::ErrorKind;
use crate::transport::stderr::StderrLog;
use crate::transport::{Exit, Launched, RunningPlugin};

/// A running plugin whose group is killed with it. Dropping it kills and reaps.
struct UnguardedPlugin {
    process: Process,
    stderr: StderrReader,
    /// Whether the host has killed it.
    killed: bool,
}

/// Starts `command` as a child of this process.
///
/// # Cancel safety
///
/// If the future is dropped, the plugin that it has started is killed.
pub(super) async fn launch(mut command: Command, log: StderrLog) -> io::Result<Launched> {
    spawn::run_on_spawner(move || {
        let pipes = Pipes::attach(&mut command, log)?;
        let child = spawn::configure_plugin(&mut command).spawn()?;
        Ok(Launched {
            process: Box::new(UnguardedPlugin {
                process: Process::new(&child)?,
                stderr: pipes.stderr,
                killed: false,
            }),
            stdin: Box::pin(pipes.stdin),
            stdout: Box::pin(pipes.stdout),
        })
    })
    .await
}

impl RunningPlugin for UnguardedPlugin {
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        self.stderr.poll(cx);
        ready!(self.process.poll_exited(cx));
        self.process.kill();
        let exit = match self.process.reap() {
            Some(status) => describe_exit(status, self.killed),
            None => Exit::failed(ErrorKind::Crash, "exit status unknown"),
        };
        self.stderr.finish(cx);
        Poll::Ready(exit)
    }

    fn is_exiting(&self) -> bool {
        self.process.is_exiting()
    }

    fn kill(&mut self) {
        self.killed = true;
        self.process.kill();
    }
}

impl Drop for UnguardedPlugin {
    fn drop(&mut self) {
        self.process.kill();
    }
}
