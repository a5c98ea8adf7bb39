#![doc = include_str!("../../../docs/containment.md")]
#![expect(
    unsafe_code,
    reason = "rustix has neither `signalfd` nor the process ID that `waitid` finds"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::mem;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus};
use std::ptr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Dir, Mode, OFlags, open};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, kill_process, kill_process_group,
    pidfd_open, pidfd_send_signal, set_child_subreaper, waitid,
};
use rustix::stdio;

use super::process::{Stat, exit_status};
use super::spawn::configure_plugin;

/// Longest wait for a killed child to exit before the guard lists descendants again. The guard
/// gets no signal when a process that is not its child exits.
const RETRY_INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// The first descriptor that is neither stdin, stdout nor stderr.
pub(super) const FIRST_FREE_FD: RawFd = 3;

/// Length of a report, in bytes: its kind and a number.
pub(super) const REPORT_LEN: usize = 5;

/// A message from a guard to its host. A guard sends at most two. The host sends nothing; to
/// request the kill it closes its end of the socket. The kernel closes that end if the host dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The plugin runs with this process ID.
    Started(i32),
    /// The system could not start the plugin, for the reason in this `errno`. This is the
    /// last report.
    NotStarted(i32),
    /// The guard cannot do its work, for the reason in this `errno`. This is the last report.
    GuardFailed(i32),
    /// The plugin has exited. This is the last report. Descendants of the plugin may be left
    /// until the guard itself has exited.
    Exited(ExitStatus),
}

impl Report {
    fn encode(self) -> [u8; REPORT_LEN] {
        let (kind, number) = match self {
            Self::Started(pid) => (1, pid),
            Self::NotStarted(errno) => (2, errno),
            Self::GuardFailed(errno) => (3, errno),
            Self::Exited(status) => (4, status.into_raw()),
        };
        let [a, b, c, d] = number.to_le_bytes();
        [kind, a, b, c, d]
    }

    /// Returns `None` for bytes that no guard of this version sends.
    pub(super) fn decode([kind, number @ ..]: [u8; REPORT_LEN]) -> Option<Self> {
        let number = i32::from_le_bytes(number);
        Some(match kind {
            1 => Self::Started(number),
            2 => Self::NotStarted(number),
            3 => Self::GuardFailed(number),
            4 => Self::Exited(ExitStatus::from_raw(number)),
            _ => return None,
        })
    }

    fn send(self, mut host: &UnixStream) {
        // Fails if the host has exited. `poll` detects that.
        let _host_died = host.write_all(&self.encode());
    }
}

/// Runs one plugin for the host that started this process. Returns the exit code of this
/// process.
///
/// `arguments` are the arguments of this process, without those that were passed to
/// [`HostOptions::guard`](crate::HostOptions::guard). Call this before anything else: this
/// process must have only one thread, must not have opened a descriptor, and must have no child.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let host = arguments.next().and_then(|number| take_socket(&number));
    let (Some(host), Some(executable)) = (host, arguments.next()) else {
        eprintln!("this is the guard of an admission plugin: only a host can start it");
        return ExitCode::FAILURE;
    };
    let (child_signal, pipes) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => {
            Report::GuardFailed(errno(&error)).send(&host);
            return ExitCode::FAILURE;
        }
    };
    let mut command = Command::new(executable);
    command.args(arguments);
    let plugin = match start(command, pipes) {
        Ok(plugin) => plugin,
        Err(error) => {
            Report::NotStarted(errno(&error)).send(&host);
            return ExitCode::FAILURE;
        }
    };
    Report::Started(plugin.as_raw_pid()).send(&host);
    wait_for_exit_or_request(plugin, &host, &child_signal);
    kill_and_reap_plugin(plugin, &host);
    kill_and_reap_descendants(&child_signal)
}

/// Takes the socket, which this process has inherited with this descriptor number.
fn take_socket(number: &OsStr) -> Option<UnixStream> {
    let number: RawFd = number.to_str()?.parse().ok()?;
    if number < FIRST_FREE_FD {
        return None;
    }
    // SAFETY: the call fails if the descriptor is not open.
    fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC).ok()?;
    // SAFETY: the descriptor is open. This process has opened none yet, so it is the socket that
    // the host passed, and nothing else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) }.into())
}

fn errno(error: &io::Error) -> i32 {
    // Only the error for a NUL byte in an argument has no `errno`. The arguments of a process
    // contain no NUL byte.
    error.raw_os_error().unwrap_or(libc::EINVAL)
}

/// Prepares this process: only SIGKILL ends it, and it adopts every orphan among its descendants.
/// Returns the descriptor that signals exited children, and the only copies of the plugin's
/// pipes in this process.
fn prepare() -> io::Result<(OwnedFd, [OwnedFd; 3])> {
    rustix::thread::set_name(c"admission-guard")?;
    // Any process ID enables this; its value has no other meaning.
    set_child_subreaper(Some(getpid()))?;
    if Stat::read(getpid()).is_none() {
        // Without `/proc` descendants cannot be found.
        return Err(Errno::NOENT.into());
    }
    let copy = |pipe| fcntl_dupfd_cloexec(pipe, FIRST_FREE_FD);
    let pipes = [
        copy(stdio::stdin())?,
        copy(stdio::stdout())?,
        copy(stdio::stderr())?,
    ];
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let null = open("/dev/null", flags, Mode::empty())?;
    stdio::dup2_stdin(&null)?;
    stdio::dup2_stdout(&null)?;
    stdio::dup2_stderr(&null)?;
    Ok((block_signals()?, pipes))
}

/// Blocks every signal, so that only SIGKILL and SIGSTOP affect this process. Returns a
/// descriptor that is readable when a child has exited. Children inherit the blocked signals.
fn block_signals() -> io::Result<OwnedFd> {
    // A process that ignores SIGCHLD gets no exit status of its children. This process may have
    // inherited that setting.
    // SAFETY: no handler is installed.
    if unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroes are a valid `sigset_t`, and each pointer refers to a complete `sigset_t`.
    let fd = unsafe {
        let mut all: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, ptr::null_mut());
        let mut child: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut child);
        libc::sigaddset(&mut child, libc::SIGCHLD);
        libc::signalfd(-1, &child, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Clears the signal. Must be called *before* looking for exited children: a child that exits
/// later signals again.
fn clear(child_signal: &OwnedFd) {
    // However many children have exited, the signal is pending at most once.
    let mut signal = [0; mem::size_of::<libc::signalfd_siginfo>()];
    let _not_pending = rustix::io::read(child_signal, &mut signal);
}

fn start(mut command: Command, [stdin, stdout, stderr]: [OwnedFd; 3]) -> io::Result<Pid> {
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    // Dropping the command closes this process's copies of the pipes.
    Ok(Pid::from_child(&configure_plugin(&mut command).spawn()?))
}

/// Waits until the plugin has exited, the host requests the kill, or the host has died. Reaps
/// every other child that exits.
fn wait_for_exit_or_request(plugin: Pid, host: &UnixStream, child_signal: &OwnedFd) {
    loop {
        clear(child_signal);
        while let Ok(Some(child)) = find_exited_child() {
            if child == plugin {
                return;
            }
            reap(child);
        }
        let mut fds = [
            PollFd::new(host, PollFlags::IN),
            PollFd::new(child_signal, PollFlags::IN),
        ];
        // The host sends nothing: the socket is readable when the host's end is closed.
        if poll(&mut fds, None).is_err() || !fds[0].revents().is_empty() {
            return;
        }
    }
}

/// Kills the plugin, if it still runs, and its process group. Then reports how the plugin exited,
/// and reaps it.
fn kill_and_reap_plugin(plugin: Pid, host: &UnixStream) {
    // The plugin may have moved to another process group.
    let _exited = kill_process(plugin, Signal::KILL);
    // The plugin, even as a zombie, keeps the group's ID from being recycled.
    let _exited = kill_process_group(plugin, Signal::KILL);
    // This comes before the kill of the descendants, because checks wait for the exit status.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    if let Ok(Some(status)) = waitid(WaitId::Pid(plugin), options) {
        Report::Exited(exit_status(&status)).send(host);
    }
    reap(plugin);
}

/// Kills and reaps all descendants, including those that they start meanwhile. Returns
/// `FAILURE` if some are left.
fn kill_and_reap_descendants(child_signal: &OwnedFd) -> ExitCode {
    loop {
        clear(child_signal);
        loop {
            match find_exited_child() {
                Ok(Some(child)) => reap(child),
                Ok(None) => break,
                Err(_) => return ExitCode::SUCCESS,
            }
        }
        // An error, such as a lack of memory, may be transient.
        if let Ok(Killed::None) = kill_descendants() {
            return ExitCode::FAILURE;
        }
        let mut fds = [PollFd::new(child_signal, PollFlags::IN)];
        // Signal, timeout and error all lead to the next iteration.
        let _any = poll(&mut fds, Some(&RETRY_INTERVAL));
    }
}

/// Returns a child that has exited, if there is one. Does not reap it.
///
/// # Errors
///
/// If this process has no children.
fn find_exited_child() -> io::Result<Option<Pid>> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: zeroes are a valid `siginfo_t`, and mean that no child was found; `waitid`
    // leaves them or fills in a child, so `si_pid` is set either way.
    let (result, pid) = unsafe {
        let mut found: libc::siginfo_t = mem::zeroed();
        let result = libc::waitid(libc::P_ALL, 0, &mut found, options);
        (result, found.si_pid())
    };
    if result == 0 {
        Ok(Pid::from_raw(pid))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reaps a child that has exited or was killed.
fn reap(child: Pid) {
    let _reaped = waitid(WaitId::Pid(child), WaitIdOptions::EXITED);
}

/// The result of `kill_descendants`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    /// At least one was killed, or has exited by itself. It may have started others meanwhile.
    Some,
    /// Descendants are left, but this process cannot see them or is not permitted to kill them.
    None,
}

/// Kills all current descendants. This process must have at least one child, running or
/// exited.
///
/// # Errors
///
/// If processes cannot be listed, because memory or descriptors are exhausted.
fn kill_descendants() -> io::Result<Killed> {
    let this = getpid().as_raw_pid();
    let all = list_processes()?;
    let mut killed = Killed::None;
    for pid in descendants(&all, this) {
        let seen = all[&pid];
        let ended = if seen.zombie {
            // If it has another parent, that parent reaps it, or this process adopts it soon.
            seen.parent == this
        } else {
            kill_seen(pid, seen, this)
        };
        if ended {
            killed = Killed::Some;
        }
    }
    Ok(killed)
}

/// Kills the process that was `seen`, but not a later one with the same ID. Returns whether
/// the system permitted it.
fn kill_seen(pid: i32, seen: Stat, this: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid) else {
        return false;
    };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        // It has exited.
        return true;
    };
    // If the ID names the same process before and after the descriptor was opened, the
    // descriptor refers to that process. If its parent has exited, the guard is its parent now.
    let same = |now: Stat| now.started == seen.started && [seen.parent, this].contains(&now.parent);
    if !Stat::read(pid).is_some_and(same) {
        return true;
    }
    pidfd_send_signal(&pidfd, Signal::KILL) != Err(Errno::PERM)
}

fn list_processes() -> io::Result<BTreeMap<i32, Stat>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = open("/proc", flags, Mode::empty())?;
    let mut all = BTreeMap::new();
    for entry in Dir::new(proc)? {
        let entry = entry?;
        let number = entry.file_name().to_str().ok();
        if let Some(pid) = number.and_then(|number| number.parse().ok())
            && let Some(stat) = Pid::from_raw(pid).and_then(Stat::read)
        {
            all.insert(pid, stat);
        }
    }
    Ok(all)
}

fn descendants(all: &BTreeMap<i32, Stat>, ancestor: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    loop {
        let known = found.len();
        for (&pid, stat) in all {
            if stat.parent == ancestor || found.contains(&stat.parent) {
                found.insert(pid);
            }
        }
        if found.len() == known {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_decoded_as_it_was_encoded() {
        for report in [
            Report::Started(42),
            Report::NotStarted(libc::ENOENT),
            Report::GuardFailed(libc::EMFILE),
            Report::Exited(ExitStatus::from_raw(255 << 8)),
            Report::Exited(ExitStatus::from_raw(libc::SIGABRT | 0x80)),
        ] {
            assert_eq!(Report::decode(report.encode()), Some(report));
        }
    }

    #[test]
    fn other_bytes_are_no_report() {
        assert_eq!(Report::decode([0; REPORT_LEN]), None);
        assert_eq!(Report::decode(*b"hello"), None);
    }

    #[test]
    fn this_process_is_listed_with_its_parent() {
        let all = list_processes().expect("procfs is mounted");
        let this = all[&getpid().as_raw_pid()];
        let parent = rustix::process::getppid().map(Pid::as_raw_pid);
        assert_eq!(Some(this.parent), parent);
        assert!(!this.zombie && this.started > 0);
    }

    #[test]
    fn grandchildren_are_descendants_whatever_their_ids() {
        let stat = |parent| Stat {
            parent,
            exiting: false,
            zombie: false,
            started: 1,
        };
        let all = [
            (2, stat(30)),
            (10, stat(1)),
            (30, stat(10)),
            (31, stat(1)),
            (40, stat(2)),
        ];
        let found = descendants(&all.into_iter().collect(), 10);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [2, 30, 40]);
    }
}
