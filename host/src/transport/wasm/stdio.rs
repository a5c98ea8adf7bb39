//! The guest's ends of its stdin, stdout and stderr.
//!
//! These implement the streams of WASI 0.2 directly. The adapters of wasmtime-wasi cost a
//! task for each call of `get-stdin`, 64 KiB for each read, and a task switch for each flush.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::cpu::CpuMeter;
use super::pipe::{CAPACITY, Closed, Pipe};
use crate::transport::stderr::StderrLog;

/// One of the guest's standard streams. Each handle of the guest is a clone of it.
pub(super) struct Stdio<T>(pub(super) T);

impl<T: InputStream + Clone + Sync> StdinStream for Stdio<T> {
    /// Serves WASI 0.1 and 0.3, which are not linked.
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(tokio::io::empty())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.0.clone())
    }
}

impl<T: OutputStream + Clone + Sync> StdoutStream for Stdio<T> {
    /// Serves WASI 0.1 and 0.3, which are not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::empty())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.0.clone())
    }
}

impl<T> IsTerminal for Stdio<T> {
    fn is_terminal(&self) -> bool {
        false
    }
}

/// The guest's stdin. All its handles read from one pipe.
#[derive(Clone)]
pub(super) struct GuestStdin {
    pub(super) pipe: Pipe,
    pub(super) meter: Arc<CpuMeter>,
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
            self.meter.mark_progress();
        }
        Ok(bytes.into())
    }

    // The default implementation traps after some spurious wakes.
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
    pub(super) pipe: Pipe,
    pub(super) meter: Arc<CpuMeter>,
}

#[async_trait]
impl Pollable for GuestStdout {
    async fn ready(&mut self) {
        poll_fn(|cx| self.pipe.poll_writable(cx)).await;
    }
}

#[async_trait]
impl OutputStream for GuestStdout {
    /// Takes all of `bytes` or traps. The permit is the room of the pipe for all handles
    /// together: a permit for each handle would let a guest exceed the buffer.
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let written = self.pipe.write(&bytes)?;
        if written < bytes.len() {
            return Err(StreamError::trap("more was written than was permitted"));
        }
        if written > 0 {
            self.meter.mark_progress();
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        // The host reads straight from the pipe.
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(self.pipe.free()?)
    }

    // The default implementation traps after some spurious wakes.
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
pub(super) struct GuestStderr(pub(super) StderrLog);

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

impl From<Closed> for StreamError {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}
