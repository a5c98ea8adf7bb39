//! Watches, kills and reaps a child process without using a recycled process ID. Describes its
//! exit, and reads `/proc`.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::task::{Context, Poll, ready};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error_kind::ErrorKind;
use crate::transport::Exit;

/// Upper bound for the length of `/proc/PID/stat`, in bytes: 52 numbers and a short name.
const MAX_STAT_LEN: usize = 2 << 10;

/// The kernel's `PF_EXITING`, which is set before the kernel closes a process's descriptors.
const PF_EXITING: u32 = 0x4;

/// A child that leads a process group of its own. Dropping it does not kill it, but reaps
/// it as soon as it exits.
pub(super) struct Process {
    /// ID of the child and of its group. Not recycled until the child is reaped.
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    reaped: bool,
}

impl Process {
    /// Takes a child that leads its group. Nothing else may reap the child. Must be called inside
    /// a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the child cannot be watched. Its group is killed.
    pub(super) fn new(child: &Child) -> io::Result<Self> {
        let pid = Pid::from_child(child);
        match watch(pid) {
            Ok(pidfd) => Ok(Self {
                pid,
                pidfd,
                reaped: false,
            }),
            Err(error) => {
                let _exited = kill_process_group(pid, Signal::KILL);
                wait_for(pid);
                Err(error)
            }
        }
    }

    /// Waits until the child has exited.
    pub(super) fn poll_exited(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // An error means that the runtime is shutting down, which drops this task.
            let Ok(mut ready) = ready!(self.pidfd.poll_read_ready(cx)) else {
                return Poll::Pending;
            };
            if self.has_exited() {
                return Poll::Ready(());
            }
            ready.clear_ready();
        }
    }

    /// Returns whether the child is exiting or has exited.
    pub(super) fn is_exiting(&self) -> bool {
        Stat::read(self.pid).is_none_or(|stat| stat.exiting)
    }

    /// Sends a signal to the child alone.
    pub(super) fn signal(&self, signal: Signal) {
        // Fails only if the child was reaped.
        let _reaped = pidfd_send_signal(self.pidfd.get_ref(), signal);
    }

    /// Kills the child and its group.
    pub(super) fn kill(&self) {
        // The child may have moved to another group.
        self.signal(Signal::KILL);
        if !self.reaped {
            // A child that is not reaped, even a zombie, keeps its ID from being recycled.
            let _empty = kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Reaps the child, which has exited. Returns `None` if its status is unknown because
    /// something else has reaped it, such as the kernel when this process ignores SIGCHLD.
    pub(super) fn reap(&mut self) -> Option<ExitStatus> {
        self.reaped = true;
        let pidfd = WaitId::PidFd(self.pidfd.as_fd());
        let status = waitid(pidfd, WaitIdOptions::EXITED);
        Some(exit_status(&status.ok()??))
    }

    /// Returns whether the child has exited; does not reap it.
    fn has_exited(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
        !matches!(status, Ok(None))
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
        // A killed process takes a moment to exit, and a drop must not wait for that.
        let pid = self.pid;
        let reaper = thread::Builder::new().name("admission-reaper".into());
        // Without a thread the zombie stays until this process exits.
        let _no_thread = reaper.spawn(move || wait_for(pid));
    }
}

#[expect(unsafe_code, reason = "`AsyncFd` has no safe constructor")]
fn watch(pid: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    // SAFETY: an owned descriptor stays open and the same until it is dropped, and the
    // `AsyncFd` owns it.
    let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    Ok(pidfd?)
}

fn wait_for(pid: Pid) {
    let wait = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    let _reaped = rustix::io::retry_on_intr(wait);
}

/// Converts what `waitid` reports into the encoding of `wait`.
pub(super) fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    const CORE_DUMPED: i32 = 0x80;

    let signal = status.terminating_signal().unwrap_or_default();
    ExitStatus::from_raw(match status.exit_status() {
        Some(code) => code << 8,
        None if status.dumped() => signal | CORE_DUMPED,
        None => signal,
    })
}

/// Describes an exit like the reference. `killed` is whether the host has killed the process.
pub(super) fn describe_exit(status: ExitStatus, killed: bool) -> Exit {
    let words = match (status.code(), status.signal()) {
        (Some(0), _) => return Exit::Success,
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(libc::SIGKILL)) if killed => return Exit::KilledByHost,
        (None, signal) => {
            let core = if status.core_dumped() {
                " (core dumped)"
            } else {
                ""
            };
            format!("signal: {}{core}", signal_name(signal.unwrap_or_default()))
        }
    };
    Exit::failed(ErrorKind::Crash, words)
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

/// The fields of `/proc/PID/stat` that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: i32,
    /// Whether the process executes no more code of its program. It may not be a zombie yet.
    pub(super) exiting: bool,
    pub(super) zombie: bool,
    /// Start time. Distinguishes a process from an earlier one with the same ID.
    pub(super) started: u64,
}

impl Stat {
    /// Returns `None` if there is no such process, or if `/proc` cannot be read.
    pub(super) fn read(pid: Pid) -> Option<Self> {
        let path = format!("/proc/{}/stat", pid.as_raw_pid());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
        let mut line = [0; MAX_STAT_LEN];
        // The kernel returns the whole line at once.
        let len = rustix::io::read(file, &mut line).ok()?;
        Self::parse(&line[..len])
    }

    fn parse(line: &[u8]) -> Option<Self> {
        // The name, in parentheses, may have any bytes. The fields follow the last `)`.
        let end_of_name = line.iter().rposition(|&byte| byte == b')')?;
        let fields = str::from_utf8(&line[end_of_name + 1..]).ok()?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let flags: u32 = fields.nth(4)?.parse().ok()?;
        let threads: u32 = fields.nth(10)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        Some(Self {
            parent,
            exiting: flags & PF_EXITING != 0,
            // A process whose first thread has exited looks like a zombie, but has others.
            zombie: matches!(state, "Z" | "X") && threads < 2,
            started,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{getpid, getppid};

    use super::*;

    fn line(name: &str, state: &str, parent: i32, threads: u32) -> String {
        format!(
            "9 ({name}) {state} {parent} 7 7 0 -1 4194304 101 0 0 0 0 0 0 0 20 0 {threads} 0 4242 8 9\n"
        )
    }

    #[test]
    fn a_process_name_may_hold_anything() {
        for name in ["sh", "a) Z 1 1 (b", ") ", "\u{fffd}"] {
            let stat = Stat::parse(line(name, "S", 8, 1).as_bytes());
            let expected = Stat {
                parent: 8,
                exiting: false,
                zombie: false,
                started: 4242,
            };
            assert_eq!(stat, Some(expected), "{name:?}");
        }
    }

    #[test]
    fn a_process_whose_first_thread_has_exited_is_no_zombie() {
        let zombie = |state, threads| {
            Stat::parse(line("sh", state, 8, threads).as_bytes()).map(|stat| stat.zombie)
        };
        assert_eq!(zombie("Z", 1), Some(true));
        assert_eq!(zombie("Z", 2), Some(false));
        assert_eq!(zombie("T", 1), Some(false));
    }

    #[test]
    fn a_truncated_line_is_no_stat() {
        assert_eq!(Stat::parse(b""), None);
        assert_eq!(Stat::parse(b"9 (sh) S 8 7"), None);
    }

    #[test]
    fn this_process_is_alive_and_has_its_parent() {
        let this = Stat::read(getpid()).expect("procfs is mounted");
        assert_eq!(Some(this.parent), getppid().map(Pid::as_raw_pid));
        assert!(!this.exiting && !this.zombie && this.started > 0);
    }

    #[test]
    fn an_exited_process_is_exiting_until_it_is_reaped() {
        let mut child = Command::new("true").spawn().expect("`true` exists");
        let pid = Pid::from_child(&child);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options).expect("it is our child");
        let zombie = Stat::read(pid).expect("it is not reaped");
        assert!(zombie.exiting && zombie.zombie);
        child.wait().expect("it is our child");
        assert_eq!(Stat::read(pid), None);
    }

    #[test]
    fn an_exit_status_survives_the_conversion() {
        for script in ["exit 0", "exit 255", "ulimit -c 0; kill -ABRT $$"] {
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let status = waitid(WaitId::Pid(Pid::from_child(&child)), options).unwrap();
            assert_eq!(exit_status(&status.unwrap()), child.wait().unwrap());
        }
    }

    #[test]
    fn exits_are_described_in_the_words_of_the_reference() {
        let describe = |status| describe_exit(ExitStatus::from_raw(status), false).to_string();
        assert_eq!(describe(0), "terminated with 0 exit code");
        assert_eq!(describe(3 << 8), "exit status 3");
        assert_eq!(describe(libc::SIGKILL), "signal: killed");
        assert_eq!(describe(libc::SIGSYS), "signal: signal 31");
        assert_eq!(
            describe(libc::SIGSEGV | 0x80),
            "signal: segmentation fault (core dumped)"
        );
        let killed = |status| describe_exit(ExitStatus::from_raw(status), true);
        assert_eq!(killed(libc::SIGKILL), Exit::KilledByHost);
        assert_eq!(killed(libc::SIGTERM).to_string(), "signal: terminated");
    }
}
