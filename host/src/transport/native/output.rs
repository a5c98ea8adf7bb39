//! A pipe from the plugin, which ends when the plugin does.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use rustix::io::Errno;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;

/// A pipe that the plugin writes to.
///
/// While the plugin lives it is read through the runtime. Once it has exited, what
/// is in the pipe is read straight from the kernel and then the pipe has ended: a
/// grandchild may hold the other end for ever, and the runtime may say "pending"
/// before it has asked the kernel.
pub(super) struct Output {
    pipe: pipe::Receiver,
    rest: Arc<Rest>,
    /// Bytes still to be read, once the plugin has exited.
    left: Option<u64>,
}

/// Tells the pipes of one plugin that it has exited.
#[derive(Debug, Default)]
pub(super) struct Rest(AtomicBool);

impl Rest {
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Output {
    /// Registers the pipe with the runtime.
    pub(super) fn new(pipe: OwnedFd, rest: Arc<Rest>) -> io::Result<Self> {
        Ok(Self {
            pipe: pipe::Receiver::from_owned_fd(pipe)?,
            rest,
            left: None,
        })
    }

    fn read_rest(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let fd = self.pipe.as_fd();
        let left = match self.left {
            Some(left) => left,
            // Counted once: who writes from now on is not the plugin.
            None => rustix::io::ioctl_fionread(fd)?,
        };
        let room = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buf.remaining());
        let to = &mut buf.initialize_unfilled()[..room];
        let n = loop {
            match rustix::io::read(fd, &mut *to) {
                Ok(n) => break n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break 0,
                Err(error) => return Err(error.into()),
            }
        };
        buf.advance(n);
        self.left = Some(if n == 0 { 0 } else { left - n as u64 });
        Ok(())
    }
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.0.load(Ordering::Acquire) {
            return Poll::Ready(self.read_rest(buf));
        }
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}
