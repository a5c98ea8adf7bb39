//! The pipes between the host and a native plugin.

use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use rustix::io::Errno;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;

use crate::transport::stderr::StderrLog;

/// The host's ends of a plugin's pipes.
pub(super) struct Pipes {
    pub(super) stdin: pipe::Sender,
    pub(super) stdout: OutputPipe,
    pub(super) stderr: StderrReader,
}

impl Pipes {
    /// Makes new pipes the stdin, stdout and stderr of `command`. Must be called inside a
    /// tokio runtime.
    pub(super) fn attach(command: &mut Command, log: StderrLog) -> io::Result<Self> {
        let (stdin, reader) = pipe::pipe()?;
        let (writer, stdout) = pipe::pipe()?;
        let (error_writer, stderr) = pipe::pipe()?;
        command
            .stdin(reader.into_blocking_fd()?)
            .stdout(writer.into_blocking_fd()?)
            .stderr(error_writer.into_blocking_fd()?);
        let exited = Arc::new(AtomicBool::new(false));
        Ok(Self {
            stdin,
            stdout: OutputPipe::new(stdout, &exited),
            stderr: StderrReader {
                pipe: Some(OutputPipe::new(stderr, &exited)),
                log,
                exited,
            },
        })
    }
}

/// A pipe that the plugin writes to. It reports end-of-file after the plugin has exited.
///
/// While the plugin runs, the pipe is read through the runtime. After the exit, the remaining
/// bytes are read directly with a system call, and then the pipe reports end-of-file. A
/// grandchild may hold the other end open, so the kernel may report none. And the runtime may
/// return "pending" before it has tried to read.
pub(super) struct OutputPipe {
    pipe: pipe::Receiver,
    /// Whether the plugin has exited.
    exited: Arc<AtomicBool>,
    /// Bytes still to read, once the plugin has exited.
    remaining: Option<u64>,
}

impl OutputPipe {
    fn new(pipe: pipe::Receiver, exited: &Arc<AtomicBool>) -> Self {
        Self {
            pipe,
            exited: Arc::clone(exited),
            remaining: None,
        }
    }

    fn read_remaining(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let fd = self.pipe.as_fd();
        let remaining = match self.remaining {
            Some(remaining) => remaining,
            // Counted once: later bytes come from other processes only.
            None => rustix::io::ioctl_fionread(fd)?,
        };
        let len = usize::try_from(remaining)
            .unwrap_or(usize::MAX)
            .min(buf.remaining());
        let room = &mut buf.initialize_unfilled()[..len];
        let n = match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut *room)) {
            Err(Errno::AGAIN) => 0,
            read => read?,
        };
        buf.advance(n);
        self.remaining = Some(if n == 0 { 0 } else { remaining - n as u64 });
        Ok(())
    }
}

impl AsyncRead for OutputPipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.exited.load(Ordering::Acquire) {
            return Poll::Ready(self.read_remaining(buf));
        }
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

/// Reads a plugin's stderr into its log.
pub(super) struct StderrReader {
    /// `None` after end-of-file.
    pipe: Option<OutputPipe>,
    log: StderrLog,
    /// Shared by both output pipes.
    exited: Arc<AtomicBool>,
}

impl StderrReader {
    /// Reads what is available now.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        let mut chunk = [0; 8 << 10];
        while let Some(pipe) = &mut self.pipe {
            let mut buf = ReadBuf::new(&mut chunk);
            match Pin::new(pipe).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.log.write(buf.filled()),
                Poll::Ready(_) => self.pipe = None,
                Poll::Pending => return,
            }
        }
    }

    /// Makes both output pipes report end-of-file after their current contents, and logs the
    /// rest of stderr. Must be called when the plugin has exited.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>) {
        self.exited.store(true, Ordering::Release);
        self.poll(cx);
        self.log.finish();
    }
}
