//! The guard: a small process between the host and one plugin, which leaves nothing of
//! the plugin behind.
//!
//! It is the parent of the plugin, and of every descendant of it that loses its own
//! parent. So it finds those too that have left the plugin's process group, and ends them
//! all: when the plugin has exited, when the host says so, and when the host itself has
//! died, of SIGKILL even. The plugin gets the guard's environment, its working directory
//! and its three pipes, as if the host had started it.
//!
//! Which program is the guard, [`HostOptions::guard`](crate::HostOptions::guard) says. It
//! calls [`run`] before it does anything else:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     let mut arguments = std::env::args_os().skip(1);
//!     if arguments.next().is_some_and(|first| first == "--guard") {
//!         return admission_host::guard::run(arguments);
//!     }
//!     // ... `HostOptions::new(runtime).guard("/proc/self/exe", ["--guard"])` ...
//!     ExitCode::SUCCESS
//! }
//! ```

mod children;
mod descendants;
pub(super) mod report;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, kill_process_group,
    set_child_subreaper, waitid,
};
use rustix::stdio;

use super::ended::Ended;
use super::spawn;
use children::{Deaths, dead_child};
use descendants::{Processes, Toll};
use report::Report;

/// How long to wait for the death of somebody who was killed before looking again: one
/// further down in the tree may die without a word to us.
const LOOK_AGAIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// The first descriptor that is neither stdin, stdout nor stderr.
pub(super) const FIRST_FREE: RawFd = 3;

/// Runs one plugin for the host that has started this process, and returns what
/// this process is to exit with.
///
/// `arguments` are those that follow the ones named to
/// [`HostOptions::guard`](crate::HostOptions::guard). To be called before anything else
/// is done: by the only thread, with nothing opened, and no child started.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let host = arguments.next().and_then(|number| inherited(&number));
    let (Some(host), Some(executable)) = (host, arguments.next()) else {
        eprintln!("this is the guard of an admission plugin: only a host can start it");
        return ExitCode::FAILURE;
    };
    let (guard, pipes) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => return fail(&host, Report::Unfit(errno(&error))),
    };
    let mut command = Command::new(executable);
    command.args(arguments);
    let plugin = match start(command, pipes) {
        Ok(plugin) => plugin,
        Err(error) => return fail(&host, Report::NotStarted(errno(&error))),
    };
    report(&host, Report::Started(plugin.as_raw_pid()));
    if guard.see_off(plugin, &host) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Takes charge of the socket that the host has left open under this number.
#[expect(unsafe_code, reason = "a number is all that an executed program gets")]
fn inherited(number: &OsStr) -> Option<UnixStream> {
    let number: RawFd = number.to_str()?.parse().ok()?;
    if number < FIRST_FREE {
        return None;
    }
    // SAFETY: it is only asked whether it is open.
    fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open, and nothing else was opened yet: the host meant it for us.
    Some(unsafe { OwnedFd::from_raw_fd(number) }.into())
}

fn report(mut host: &UnixStream, report: Report) {
    // A host that is gone needs no report, and its absence is noticed anyway.
    let _gone = host.write_all(&report.encode());
}

fn fail(host: &UnixStream, why: Report) -> ExitCode {
    report(host, why);
    ExitCode::FAILURE
}

fn errno(error: &io::Error) -> i32 {
    // What does not come from the system is a NUL in an argument, which cannot get here.
    error.raw_os_error().unwrap_or(libc::EINVAL)
}

/// Makes this process one that nothing but SIGKILL ends, that adopts every orphan among
/// its descendants, and that has no copy of the plugin's pipes but those it returns.
fn prepare() -> io::Result<(Guard, [OwnedFd; 3])> {
    rustix::thread::set_name(c"admission-guard")?;
    // Any process but none turns it on.
    set_child_subreaper(Some(getpid()))?;
    let aside = |pipe| fcntl_dupfd_cloexec(pipe, FIRST_FREE);
    let pipes = [
        aside(stdio::stdin())?,
        aside(stdio::stdout())?,
        aside(stdio::stderr())?,
    ];
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let null = openat(CWD, "/dev/null", flags, Mode::empty())?;
    stdio::dup2_stdin(&null)?;
    stdio::dup2_stdout(&null)?;
    stdio::dup2_stderr(&null)?;
    let guard = Guard {
        deaths: Deaths::note()?,
        processes: Processes::open()?,
    };
    Ok((guard, pipes))
}

fn start(mut command: Command, [stdin, stdout, stderr]: [OwnedFd; 3]) -> io::Result<Pid> {
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    // The command, and the pipes with it, is dropped at the end.
    Ok(Pid::from_child(&spawn::plugin(&mut command).spawn()?))
}

/// A process that is fit to be a plugin's parent.
struct Guard {
    deaths: Deaths,
    processes: Processes,
}

impl Guard {
    /// Waits for the end of the plugin, which leads its group, or of the host; then ends
    /// everything.
    fn see_off(&self, plugin: Pid, host: &UnixStream) -> bool {
        if self.wait(plugin, host) == Ending::ByHost {
            // By itself too: it may have moved to another group.
            let _gone = kill_process(plugin, Signal::KILL);
            let _gone = kill_process_group(plugin, Signal::KILL);
        }
        // Whoever waits for a verdict is to know at once, whatever else there is to end.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        if let Ok(Some(status)) = waitid(WaitId::Pid(plugin), options) {
            report(host, Report::Ended(Ended::of(&status)));
        }
        // The zombie keeps the number of the group from being given to anybody else.
        let _gone = kill_process_group(plugin, Signal::KILL);
        reap(plugin);
        self.end_the_rest()
    }

    fn wait(&self, plugin: Pid, host: &UnixStream) -> Ending {
        loop {
            self.deaths.forget();
            if self.has_ended(plugin) {
                return Ending::ByItself;
            }
            let mut fds = [
                PollFd::new(host, PollFlags::IN),
                PollFd::new(&self.deaths, PollFlags::IN),
            ];
            // The host says nothing but that it wants the end, or is at its own.
            if poll(&mut fds, None).is_err() || !fds[0].revents().is_empty() {
                return Ending::ByHost;
            }
        }
    }

    /// Tells whether the plugin is a zombie; reaps every other child that is one.
    fn has_ended(&self, plugin: Pid) -> bool {
        while let Ok(Some(dead)) = dead_child() {
            if dead == plugin {
                return true;
            }
            reap(dead);
        }
        false
    }

    /// Ends all descendants, however many start more of them meanwhile. Returns whether none
    /// is left.
    fn end_the_rest(&self) -> bool {
        loop {
            self.deaths.forget();
            loop {
                match dead_child() {
                    Ok(Some(dead)) => reap(dead),
                    Ok(None) => break,
                    Err(_) => return true,
                }
            }
            // What cannot be read for want of memory can be later.
            if let Ok(Toll::OutOfReach) = self.processes.kill_descendants() {
                return false;
            }
            let mut death = [PollFd::new(&self.deaths, PollFlags::IN)];
            // Whatever comes of it, it is looked again.
            let _any = poll(&mut death, Some(&LOOK_AGAIN));
        }
    }
}

/// Why a plugin ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    ByItself,
    ByHost,
}

/// Reaps a child that is dead.
fn reap(dead: Pid) {
    let _reaped = waitid(WaitId::Pid(dead), WaitIdOptions::EXITED);
}
