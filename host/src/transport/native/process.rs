//! A child process: watched, killed and reaped without ever naming a recycled pid.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::thread;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ended::Ended;
use super::stat::Stat;

/// A child that leads a process group of its own. Dropping it reaps it, whenever it
/// ends, and kills nobody.
pub(super) struct Process {
    /// Of the child and of its group; ours until the child is reaped.
    pid: Pid,
    pidfd: OwnedFd,
    reaped: bool,
}

/// Becomes ready when a process has exited.
pub(super) struct Watch(AsyncFd<OwnedFd>);

impl Process {
    /// Takes charge of a child that leads its group and that nobody else reaps.
    ///
    /// # Errors
    ///
    /// If it cannot be watched; it was killed.
    pub(super) fn new(pid: Pid) -> io::Result<Self> {
        let pidfd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _gone = kill_process_group(pid, Signal::KILL);
                wait_for(pid);
                return Err(error.into());
            }
        };
        Ok(Self {
            pid,
            pidfd,
            reaped: false,
        })
    }

    /// Begins to watch for the end. Must be called inside a tokio runtime.
    #[expect(unsafe_code, reason = "tokio wants a promise about the descriptor")]
    pub(super) fn watch(&self) -> io::Result<Watch> {
        let pidfd = self.pidfd.try_clone()?;
        // SAFETY: an owned descriptor is open and stays the same until it is dropped,
        // and the watch owns it.
        let watch = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        Ok(Watch(watch?))
    }

    /// Tells whether the child has exited; leaves it a zombie.
    pub(super) fn has_exited(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
        !matches!(status, Ok(None))
    }

    /// Tells whether the child is on its way out, or has exited.
    pub(super) fn is_exiting(&self) -> bool {
        Stat::of(self.pid).is_none_or(|child| child.exiting)
    }

    /// Sends a signal to the child alone.
    pub(super) fn signal(&self, signal: Signal) {
        // It can only say that there is nobody left.
        let _gone = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Kills whoever is in the child's group.
    pub(super) fn kill_group(&self) {
        if !self.reaped {
            // The child, even as a zombie, keeps the number from being given to others.
            let _gone = kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Reaps the child, which has exited, and tells how; `None` if that is not known,
    /// as somebody else has reaped it.
    pub(super) fn reap(&mut self) -> Option<Ended> {
        self.reaped = true;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        Some(Ended::of(&status.ok()??))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        if self.has_exited() {
            self.reap();
            return;
        }
        // Death takes a moment, and a drop must not wait for it.
        let pid = self.pid;
        let reaper = thread::Builder::new().name("admission-reaper".into());
        // Without a thread the zombie stays until this process ends.
        let _no_thread = reaper.spawn(move || wait_for(pid));
    }
}

impl Watch {
    /// Waits until `process`, which is the one watched, has exited.
    pub(super) fn poll_exited(&mut self, cx: &mut Context<'_>, process: &Process) -> Poll<()> {
        loop {
            // An error here would be the runtime's own end, which drops this task anyway.
            let Ok(mut ready) = ready!(self.0.poll_read_ready(cx)) else {
                return Poll::Pending;
            };
            if process.has_exited() {
                return Poll::Ready(());
            }
            ready.clear_ready();
        }
    }
}

fn wait_for(pid: Pid) {
    let wait = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    let _gone = rustix::io::retry_on_intr(wait);
}
