//! How a process ended, in numbers and in words.

use rustix::process::{Signal, WaitIdStatus};

use crate::error_kind::ErrorKind;
use crate::transport::Exit;

/// How a process ended, as its parent is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, with this exit status.
    Exited(i32),
    /// Of this signal.
    Signaled(i32),
    /// Of this signal, and left a core dump.
    Dumped(i32),
}

impl Ended {
    pub(super) fn of(status: &WaitIdStatus) -> Self {
        if let Some(code) = status.exit_status() {
            return Self::Exited(code);
        }
        let signal = status.terminating_signal().unwrap_or_default();
        if status.dumped() {
            Self::Dumped(signal)
        } else {
            Self::Signaled(signal)
        }
    }

    /// Describes the end of a plugin, which the host has `killed` or not.
    pub(super) fn exit(self, killed: bool) -> Exit {
        let words = match self {
            Self::Exited(0) => return Exit::Success,
            Self::Exited(code) => format!("exit status {code}"),
            Self::Signaled(signal) if killed && signal == Signal::KILL.as_raw() => {
                return Exit::KilledByHost;
            }
            Self::Signaled(signal) => format!("signal: {}", signal_name(signal)),
            Self::Dumped(signal) => format!("signal: {} (core dumped)", signal_name(signal)),
        };
        Exit::failed(ErrorKind::Crash, words)
    }
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
