//! A child process: watched, killed and reaped without ever naming a recycled pid.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::class::Class;
use crate::transport::Exit;

/// A child that leads a process group of its own. Dropping it kills and reaps.
pub(super) struct Child {
    /// Of the child and of its group; ours until the child is reaped.
    pid: Pid,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Child {
    /// Takes charge of a child that leads its group and that nobody else reaps.
    pub(super) fn new(pid: Pid) -> io::Result<Self> {
        let pidfd = match pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                kill_and_reap(pid);
                return Err(error.into());
            }
        };
        Ok(Self {
            pid,
            pidfd,
            reaped: false,
        })
    }

    /// Returns a watch that becomes readable once the child has exited.
    #[expect(unsafe_code, reason = "tokio wants a promise about the descriptor")]
    pub(super) fn watch(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let pidfd = self.pidfd.try_clone()?;
        // SAFETY: an owned descriptor is open and stays the same until it is dropped,
        // and the watch owns it.
        let watch = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        Ok(watch?)
    }

    /// Tells whether the child has exited; leaves it a zombie.
    pub(super) fn has_exited(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
        !matches!(status, Ok(None))
    }

    /// Kills the child and its group.
    pub(super) fn kill(&self) {
        // Each can only say that there is nobody left to kill.
        let _gone = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _gone = kill_process_group(self.pid, Signal::KILL);
    }

    /// Kills what is left of the group, then reaps the child, which has exited, and
    /// tells how. `killed` tells whether the host has killed it.
    pub(super) fn reap(&mut self, killed: bool) -> Exit {
        // The zombie keeps the number of the group from being given to anybody else.
        let _gone = kill_process_group(self.pid, Signal::KILL);
        self.reaped = true;
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => exit(&status, killed),
            // Somebody else has reaped our child: how it ended cannot be known.
            Ok(None) | Err(_) => Exit::failed(Class::Crash, "exit status unknown"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.kill();
        if self.has_exited() {
            self.reap(true);
            return;
        }
        // Death takes a moment, and a drop must not wait for it.
        let pid = self.pid;
        let reaper = thread::Builder::new().name("admission-reaper".into());
        // Without a thread the zombie stays until this process ends.
        let _no_thread = reaper.spawn(move || kill_and_reap(pid));
    }
}

fn kill_and_reap(pid: Pid) {
    let _gone = kill_process_group(pid, Signal::KILL);
    let wait = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    let _gone = rustix::io::retry_on_intr(wait);
}

fn exit(status: &WaitIdStatus, killed: bool) -> Exit {
    if let Some(code) = status.exit_status() {
        return match code {
            0 => Exit::Success,
            _ => Exit::failed(Class::Crash, format!("exit status {code}")),
        };
    }
    let signal = status.terminating_signal().unwrap_or_default();
    if killed && signal == Signal::KILL.as_raw() {
        return Exit::KilledByHost;
    }
    let core = if status.dumped() {
        " (core dumped)"
    } else {
        ""
    };
    Exit::failed(
        Class::Crash,
        format!("signal: {}{core}", signal_name(signal)),
    )
}

/// Names a signal as the reference does.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGABRT => "aborted",
        libc::SIGALRM => "alarm clock",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGHUP => "hangup",
        libc::SIGILL => "illegal instruction",
        libc::SIGINT => "interrupt",
        libc::SIGKILL => "killed",
        libc::SIGPIPE => "broken pipe",
        libc::SIGQUIT => "quit",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGTERM => "terminated",
        libc::SIGTRAP => "trace/breakpoint trap",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}
