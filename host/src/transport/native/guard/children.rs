//! The guard's children: that one has ended, and which.
#![expect(
    unsafe_code,
    reason = "neither signals nor the pid that `waitid` finds are to be had without"
)]

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

use rustix::process::Pid;

/// Becomes readable when a child has ended.
pub(super) struct Deaths(OwnedFd);

impl Deaths {
    /// Blocks every signal, so that none but SIGKILL and SIGSTOP touches this process,
    /// and begins to note when a child ends. Children inherit that all are blocked.
    pub(super) fn note() -> io::Result<Self> {
        // Whoever ignores this signal is not told how a child has ended, and that it is
        // ignored may have been inherited.
        // SAFETY: no handler is installed.
        if unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a set of signals may be all zeroes, and each call gets a whole one.
        let fd = unsafe {
            let mut all: libc::sigset_t = mem::zeroed();
            libc::sigfillset(&mut all);
            libc::sigprocmask(libc::SIG_SETMASK, &all, ptr::null_mut());
            let mut ends: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&mut ends);
            libc::sigaddset(&mut ends, libc::SIGCHLD);
            libc::signalfd(-1, &ends, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was opened just now, so nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Forgets what was noted. To be called *before* looking for the dead, or one that
    /// ends meanwhile is overlooked.
    pub(super) fn forget(&self) {
        // However many have ended, the signal is pending once at most.
        let mut noted = [0; mem::size_of::<libc::signalfd_siginfo>()];
        let _none = rustix::io::read(&self.0, &mut noted);
    }
}

impl AsFd for Deaths {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns a child that has ended, if any has, and leaves it a zombie.
///
/// # Errors
///
/// If there are no children at all.
pub(super) fn dead_child() -> io::Result<Option<Pid>> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the structure may be all zeroes, which also says that no child was found;
    // after the call it has a pid or still says so.
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
