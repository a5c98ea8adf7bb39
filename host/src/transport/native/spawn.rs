//! Spawning, from one thread that never ends.
#![expect(
    unsafe_code,
    reason = "what happens between fork and exec is unsafe by nature"
)]

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::sync::{mpsc, oneshot};

use super::child::Child;
use crate::transport::LaunchError;

/// Spawns that may wait for the thread; one takes about a millisecond.
const QUEUE: usize = 16;

/// A child and the host's ends of its pipes.
pub(super) struct Spawned {
    pub(super) child: Child,
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

struct Job {
    command: Command,
    spawned: oneshot::Sender<io::Result<Spawned>>,
}

/// Spawns `command` as the leader of a process group of its own.
///
/// # Cancel safety
///
/// When the future is dropped, a child that was spawned for it is killed.
pub(super) async fn spawn(command: Command) -> io::Result<Spawned> {
    let (spawned, answer) = oneshot::channel();
    let job = Job { command, spawned };
    let gone = |_| io::Error::other("the spawning thread has ended");
    spawner()?.send(job).await.map_err(|_| gone(()))?;
    answer.await.map_err(|_| gone(()))?
}

/// Returns the way to the spawning thread of this process.
///
/// A child's parent-death signal is bound to the *thread* that forked it, so plugins
/// must not be spawned from a thread that may end before they do.
fn spawner() -> io::Result<&'static mpsc::Sender<Job>> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    if let Some(spawner) = SPAWNER.get() {
        return Ok(spawner);
    }
    let (sender, mut jobs) = mpsc::channel::<Job>(QUEUE);
    let thread = thread::Builder::new().name("admission-spawner".into());
    thread.spawn(move || {
        while let Some(Job { command, spawned }) = jobs.blocking_recv() {
            // Nobody waits any more: dropping the child kills it.
            let _abandoned = spawned.send(spawn_here(command));
        }
    })?;
    // The loser of a race ends its thread at once, as its sender is dropped.
    Ok(SPAWNER.get_or_init(|| sender))
}

fn spawn_here(mut command: Command) -> io::Result<Spawned> {
    command.process_group(0);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let host = getpid();
    // SAFETY: the closure makes system calls only, and allocates nothing.
    unsafe {
        command.pre_exec(move || before_exec(host));
    }
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let child = Child::new(pid.expect("a child has a pid"))?;
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        unreachable!("all three were asked to be pipes");
    };
    Ok(Spawned {
        child,
        stdin: stdin.into(),
        stdout: stdout.into(),
        stderr: stderr.into(),
    })
}

/// Runs in the child.
fn before_exec(host: Pid) -> io::Result<()> {
    // With CLOEXEC and not closed: the pipe by which the parent learns that exec has
    // failed must live until exec.
    // SAFETY: no memory is involved.
    let result = unsafe { libc::close_range(3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The host may have died before the signal was set.
    if getppid() != Some(host) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
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
