//! Stdin and stdout, taken away from everybody else in the process.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::stdio::{dup2_stdin, dup2_stdout, stderr, stdin, stdout};

use crate::RunError;

/// Duplicates start here: a descriptor of a standard stream that the parent left closed
/// would be inherited as that stream by child processes.
const ABOVE_STDERR: i32 = 3;

/// Where the host's frames come from.
pub(super) struct Input(OwnedFd);

/// Where ours go.
pub(super) struct Output(OwnedFd);

/// Takes private duplicates that no child process inherits. Then stdin is empty and
/// stdout goes to stderr, so that neither the author's `println!` nor a child process can
/// come between the frames. Nothing restores them.
///
/// # Errors
///
/// [`RunError::AlreadyRan`] the second time, [`RunError::Stdio`].
pub(super) fn take() -> Result<(Input, Output), RunError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(RunError::AlreadyRan);
    }
    duplicate().map_err(RunError::Stdio)
}

fn duplicate() -> io::Result<(Input, Output)> {
    let input = fcntl_dupfd_cloexec(stdin(), ABOVE_STDERR)?;
    let output = fcntl_dupfd_cloexec(stdout(), ABOVE_STDERR)?;
    let empty = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(empty)?;
    dup2_stdout(stderr())?;
    // Half a line that was printed before goes to stderr too; if that is closed, nowhere.
    let _ = io::stdout().flush();
    Ok((Input(input), Output(output)))
}

impl Input {
    /// Reads what is there, waiting for the first byte; 0 is the end.
    pub(super) fn read(&self, bytes: &mut [u8]) -> Result<usize, RunError> {
        retry_on_intr(|| rustix::io::read(&self.0, &mut *bytes))
            .map_err(|errno| RunError::Read(errno.into()))
    }
}

impl Output {
    pub(super) fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match retry_on_intr(|| rustix::io::write(&self.0, bytes))? {
                0 => return Err(Errno::IO.into()),
                count => bytes = &bytes[count..],
            }
        }
        Ok(())
    }
}
