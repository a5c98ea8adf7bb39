//! The guest's ends of its stdin, stdout and stderr.
//!
//! These implement the WASI streams themselves. The stock adapters cost a task for
//! each call of `get-stdin`, 64 KiB for each read, and a task switch for each flush.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::cpu::Progress;
use super::pipe::{CAPACITY, Closed, Pipe};
use crate::transport::stderr::StderrLog;

/// The guest's stdin. All its handles take from one pipe.
#[derive(Clone)]
pub(super) struct GuestStdin {
    pipe: Pipe,
    progress: Arc<Progress>,
}

impl GuestStdin {
    pub(super) fn new(pipe: Pipe, progress: Arc<Progress>) -> Self {
        Self { pipe, progress }
    }
}

impl StdinStream for GuestStdin {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.pipe.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

impl IsTerminal for GuestStdin {
    fn is_terminal(&self) -> bool {
        false
    }
}

#[async_trait]
impl Pollable for GuestStdin {
    async fn ready(&mut self) {
        poll_fn(|cx| self.pipe.poll_readable(cx)).await;
    }
}

#[async_trait]
impl InputStream for GuestStdin {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut bytes = Vec::new();
        let len = self
            .pipe
            .read(size, |piece| bytes.extend_from_slice(piece))?;
        if len > 0 {
            self.progress.mark();
        }
        Ok(bytes.into())
    }

    // The default polls twice, and counts on luck: it traps after some futile wakes.
    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        loop {
            self.ready().await;
            let bytes = self.read(size)?;
            if !bytes.is_empty() || size == 0 {
                return Ok(bytes);
            }
        }
    }
}

/// The guest's stdout. All its handles append to one pipe.
#[derive(Clone)]
pub(super) struct GuestStdout {
    pipe: Pipe,
    progress: Arc<Progress>,
}

impl GuestStdout {
    pub(super) fn new(pipe: Pipe, progress: Arc<Progress>) -> Self {
        Self { pipe, progress }
    }
}

impl StdoutStream for GuestStdout {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.pipe.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl IsTerminal for GuestStdout {
    fn is_terminal(&self) -> bool {
        false
    }
}

#[async_trait]
impl Pollable for GuestStdout {
    async fn ready(&mut self) {
        poll_fn(|cx| self.pipe.poll_writable(cx)).await;
    }
}

#[async_trait]
impl OutputStream for GuestStdout {
    /// Takes all of `bytes` or traps. The permit is what is free now, whichever handle
    /// asked for it: permits that add up would let handles multiply the buffer.
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let written = self.pipe.write(&bytes)?;
        if written < bytes.len() {
            return Err(StreamError::trap("more was written than was permitted"));
        }
        if written > 0 {
            self.progress.mark();
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        // Nothing lies between the guest and the buffer that the host reads.
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(self.pipe.free()?)
    }

    // The default polls twice, and counts on luck: it traps after some futile wakes.
    async fn write_ready(&mut self) -> StreamResult<usize> {
        loop {
            self.ready().await;
            let permit = self.check_write()?;
            if permit > 0 {
                return Ok(permit);
            }
        }
    }
}

/// The guest's stderr. Takes everything at once and never blocks the guest.
#[derive(Clone)]
pub(super) struct GuestStderr(StderrLog);

impl GuestStderr {
    pub(super) fn new(log: StderrLog) -> Self {
        Self(log)
    }
}

impl StdoutStream for GuestStderr {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl IsTerminal for GuestStderr {
    fn is_terminal(&self) -> bool {
        false
    }
}

#[async_trait]
impl Pollable for GuestStderr {
    async fn ready(&mut self) {}
}

impl OutputStream for GuestStderr {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CAPACITY)
    }
}

impl AsyncWrite for GuestStderr {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl From<Closed> for StreamError {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}
