//! Spawning, from one thread that never ends.
#![expect(
    unsafe_code,
    reason = "what happens between fork and exec is unsafe by nature"
)]

use std::ffi::OsStr;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::OnceLock;
use std::thread;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::sync::{mpsc, oneshot};

use super::process::Process;
use crate::transport::LaunchError;

/// Spawns that may wait for the thread; one takes about a millisecond.
const QUEUE: usize = 16;

/// The host's ends of a child's pipes.
pub(super) struct Pipes {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Spawns something, on its thread.
type Job = Box<dyn FnOnce() + Send>;

/// Runs `spawn` on the spawning thread of this process, and returns what it returns.
///
/// A child's parent-death signal is bound to the *thread* that forked it, so plugins
/// must not be spawned from a thread that may end before they do.
///
/// # Cancel safety
///
/// When the future is dropped, what was spawned for it is dropped, too.
pub(super) async fn on_spawner<T: Send + 'static>(
    spawn: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (spawned, answer) = oneshot::channel();
    let job = Box::new(move || {
        // Nobody waits any more: what was spawned is dropped.
        let _abandoned = spawned.send(spawn());
    });
    let gone = |_| io::Error::other("the spawning thread has ended");
    spawner()?.send(job).await.map_err(|_| gone(()))?;
    answer.await.map_err(|_| gone(()))?
}

fn spawner() -> io::Result<&'static mpsc::Sender<Job>> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    if let Some(spawner) = SPAWNER.get() {
        return Ok(spawner);
    }
    let (sender, mut jobs) = mpsc::channel::<Job>(QUEUE);
    let thread = thread::Builder::new().name("admission-spawner".into());
    thread.spawn(move || {
        while let Some(job) = jobs.blocking_recv() {
            job();
        }
    })?;
    // The loser of a race ends its thread at once, as its sender is dropped.
    Ok(SPAWNER.get_or_init(|| sender))
}

/// Spawns `command`, which must make it lead a process group, with three pipes.
pub(super) fn piped(command: &mut Command) -> io::Result<(Process, Pipes)> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let process = Process::new(Pid::from_child(&child))?;
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        unreachable!("all three were asked to be pipes");
    };
    let pipes = Pipes {
        stdin: stdin.into(),
        stdout: stdout.into(),
        stderr: stderr.into(),
    };
    Ok((process, pipes))
}

/// Makes `command` start a plugin: it leads a process group, dies with the thread that
/// spawns it, and inherits no blocked signal and no descriptor but stdin, stdout and
/// stderr.
pub(super) fn plugin(command: &mut Command) -> &mut Command {
    command.process_group(0);
    let parent = getpid();
    let before_exec = move || {
        inherit_no_descriptors()?;
        unblock_signals()?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the signal was set.
        if getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(before_exec) }
}

/// Makes `command` start a guard: it leads a process group, outlives its parent, and
/// inherits `socket` beside stdin, stdout and stderr.
pub(super) fn guard(command: &mut Command, socket: OwnedFd) -> &mut Command {
    command.process_group(0);
    let before_exec = move || {
        inherit_no_descriptors()?;
        Ok(fcntl_setfd(&socket, FdFlags::empty())?)
    };
    // SAFETY: the closure makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(before_exec) }
}

/// Runs in a child: unblocks all signals, as whoever spawns may have blocked some.
fn unblock_signals() -> io::Result<()> {
    // SAFETY: a set of signals may be all zeroes, and is on the stack.
    let result = unsafe {
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Runs in a child: lets exec close all descriptors but the first three.
fn inherit_no_descriptors() -> io::Result<()> {
    // Not at once: the pipe by which the parent learns that exec has failed must live
    // until exec.
    // SAFETY: no memory is involved.
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

const CLOSE_RANGE_CLOEXEC: libc::c_int = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;

/// Describes in the reference's words why `executable` was not started.
pub(super) fn error(executable: &OsStr, source: io::Error) -> LaunchError {
    let name = executable.to_string_lossy();
    let words = match source.kind() {
        _ if name.is_empty() => "exec: no command".to_owned(),
        io::ErrorKind::NotFound if !name.contains('/') => {
            format!("exec: {name:?}: executable file not found in $PATH")
        }
        _ => format!(
            "fork/exec {}: {}",
            admission_proto::escape(&name),
            reason(&source)
        ),
    };
    LaunchError::Spawn { words, source }
}

/// Describes in the reference's words why `executable`, which was found in a folder of
/// `PATH` that is not absolute, was not started.
pub(super) fn found_relatively(executable: &OsStr) -> LaunchError {
    let name = executable.to_string_lossy();
    LaunchError::Spawn {
        words: format!("exec: {name:?}: cannot run executable found relative to current directory"),
        source: io::Error::other("it is in a folder of PATH that is not absolute"),
    }
}

/// Returns the system's words without the number, in lower case.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_the_words_of_the_reference() {
        let words = |executable: &str, errno| {
            error(executable.as_ref(), io::Error::from_raw_os_error(errno)).to_string()
        };
        assert_eq!(
            words("policy", libc::ENOENT),
            r#"failed to launch the plugin: exec: "policy": executable file not found in $PATH"#
        );
        assert_eq!(
            words("/p", libc::ENOENT),
            "failed to launch the plugin: fork/exec /p: no such file or directory"
        );
        assert_eq!(
            words("/p", libc::EACCES),
            "failed to launch the plugin: fork/exec /p: permission denied"
        );
        assert_eq!(
            words("", libc::ENOENT),
            "failed to launch the plugin: exec: no command"
        );
    }
}
