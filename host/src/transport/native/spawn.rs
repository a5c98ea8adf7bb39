//! Starting a process: the spawning thread, the code between fork and exec, and the errors.
#![expect(
    unsafe_code,
    reason = "`pre_exec` and the system calls in it are unsafe"
)]

use std::env;
use std::ffi::OsStr;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::sync::OnceLock;
use std::thread;

use rustix::fs::{Access, access};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::transport::LaunchError;

/// Limit of spawns that wait for the thread. A spawn takes about a millisecond.
const MAX_QUEUED: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

/// Runs `spawn` on the spawning thread of this process, inside the current tokio runtime.
///
/// A child's parent-death signal is bound to the *thread* that forked it, so plugins must
/// not be spawned from a thread that may exit before they do.
///
/// # Cancel safety
///
/// When the future is dropped, what `spawn` returns is dropped too.
pub(super) async fn run_on_spawner<T: Send + 'static>(
    spawn: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, spawned) = oneshot::channel();
    let runtime = Handle::current();
    let job = Box::new(move || {
        let _context = runtime.enter();
        let _cancelled = sender.send(spawn());
    });
    let panicked = || io::Error::other("the spawning thread panicked");
    spawner()?.send(job).await.map_err(|_| panicked())?;
    spawned.await.map_err(|_| panicked())?
}

fn spawner() -> io::Result<&'static mpsc::Sender<Job>> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    if let Some(spawner) = SPAWNER.get() {
        return Ok(spawner);
    }
    let (sender, mut jobs) = mpsc::channel::<Job>(MAX_QUEUED);
    let thread = thread::Builder::new().name("admission-spawner".into());
    thread.spawn(move || {
        while let Some(job) = jobs.blocking_recv() {
            // tokio panics if the runtime of the job has no I/O driver. If that ended the thread,
            // it would kill the plugins of all other runtimes.
            let _panicked = catch_unwind(AssertUnwindSafe(job));
        }
    })?;
    // If two threads race here, one sender is dropped, which ends its thread.
    Ok(SPAWNER.get_or_init(|| sender))
}

/// Configures `command` for a plugin: it leads a process group, is killed when the spawning
/// thread exits, and inherits no blocked signal and only stdin, stdout and stderr.
pub(super) fn configure_plugin(command: &mut Command) -> &mut Command {
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
    // SAFETY: the closure only makes system calls, and allocates nothing.
    unsafe { command.pre_exec(before_exec) }
}

/// Configures `command` for a guard: it leads a process group, outlives its parent, and
/// inherits `socket`, stdin, stdout and stderr.
pub(super) fn configure_guard(command: &mut Command, socket: OwnedFd) -> &mut Command {
    command.process_group(0);
    let before_exec = move || {
        inherit_no_descriptors()?;
        Ok(fcntl_setfd(&socket, FdFlags::empty())?)
    };
    // SAFETY: the closure only makes system calls, and allocates nothing.
    unsafe { command.pre_exec(before_exec) }
}

/// Runs in the child: unblocks all signals, as the spawning thread may have blocked some.
fn unblock_signals() -> io::Result<()> {
    // SAFETY: zeroes are a valid `sigset_t`, and the call only reads it.
    check(unsafe {
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut())
    })
}

/// Runs in the child: makes exec close all descriptors but the first three.
fn inherit_no_descriptors() -> io::Result<()> {
    const CLOEXEC: libc::c_int = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;

    // Closed only by exec: the pipe that reports a failed exec to the parent must stay open.
    // SAFETY: the call accesses no memory.
    check(unsafe { libc::close_range(3, libc::c_uint::MAX, CLOEXEC) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Refuses an `executable` that the system would find in a directory of `search_path` that is
/// not absolute: anyone who can write to the working directory would choose the program.
///
/// # Errors
///
/// [`LaunchError::Spawn`], with the text of the reference.
pub(super) fn check_lookup(executable: &OsStr, search_path: &OsStr) -> Result<(), LaunchError> {
    if executable.is_empty() || executable.as_bytes().contains(&b'/') {
        return Ok(());
    }
    let found =
        env::split_paths(search_path).find(|directory| is_executable(&directory.join(executable)));
    if found.is_none_or(|directory| directory.is_absolute()) {
        return Ok(());
    }
    let name = executable.to_string_lossy();
    Err(LaunchError::Spawn {
        words: format!("exec: {name:?}: cannot run executable found relative to current directory"),
        source: io::Error::other("it is in a directory of PATH that is not absolute"),
    })
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && access(file, Access::EXEC_OK).is_ok()
}

/// Creates the error of an `executable` that was not started, with the text of the reference.
pub(super) fn launch_error(executable: &OsStr, source: io::Error) -> LaunchError {
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

/// Returns the system's text for an error, without the number and in lower case.
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
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_does_not_end_the_spawning_thread() {
        let spawned = run_on_spawner(|| -> io::Result<()> { panic!("this test panics") }).await;
        let error = spawned.expect_err("the spawn panicked");
        assert_eq!(error.to_string(), "the spawning thread panicked");
        run_on_spawner(|| Ok(())).await.expect("the thread runs");
    }

    #[test]
    fn launch_errors_use_the_words_of_the_reference() {
        let words = |executable: &str, errno| {
            launch_error(executable.as_ref(), io::Error::from_raw_os_error(errno)).to_string()
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

    /// Creates a file `policy` with this mode in a new directory. Returns the directory's absolute
    /// path and its path relative to the working directory.
    #[expect(clippy::disallowed_methods, reason = "the test creates its own files")]
    fn policy(mode: u32) -> (tempfile::TempDir, String, String) {
        let here = env::current_dir().expect("the working directory exists");
        let directory = tempfile::tempdir_in(&here).expect("a directory");
        let file = directory.path().join("policy");
        std::fs::write(&file, "").expect("the directory is ours");
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).expect("it is ours");
        let name = directory.path().file_name().expect("it has a name");
        let relative = name.to_string_lossy().into_owned();
        let absolute = directory.path().to_string_lossy().into_owned();
        (directory, absolute, relative)
    }

    fn is_refused(name: &str, path: &str) -> bool {
        check_lookup(name.as_ref(), path.as_ref()).is_err()
    }

    #[test]
    fn the_first_directory_with_the_executable_decides() {
        let (_directory, absolute, relative) = policy(0o755);
        assert!(is_refused("policy", &relative));
        assert!(is_refused(
            "policy",
            &format!("/does/not/exist:{relative}:{absolute}")
        ));
        assert!(!is_refused("policy", &format!("{absolute}:{relative}")));
        assert!(!is_refused("other", &relative));
    }

    #[test]
    fn a_file_that_is_not_executable_is_skipped() {
        let (_directory, _, relative) = policy(0o644);
        assert!(!is_refused("policy", &relative));
        assert!(!is_refused(&relative, "."), "a directory is no program");
    }

    #[test]
    fn a_name_with_a_slash_is_not_looked_up() {
        let (_directory, _, relative) = policy(0o755);
        assert!(!is_refused(&format!("{relative}/policy"), "."));
        assert!(!is_refused("", "."));
    }
}
