//! One direction of a component's stdio: a bounded buffer between host and guest.
//!
//! There is no task and no channel. Both ends usually run in the same task, so bytes are copied
//! under one short lock, and a waker is called only when the other end waits.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Capacity of one pipe, in bytes: that of a kernel pipe.
pub(super) const CAPACITY: usize = 64 << 10;

/// A pipe. Its clones are the same pipe.
///
/// Each end has room for one waiter: the guest runs as one task, and so does the host. A
/// waker may run any code, so it is called without the lock.
#[derive(Clone, Default)]
pub(super) struct Pipe(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    queued: VecDeque<u8>,
    writer_closed: bool,
    reader_closed: bool,
    waiting_reader: Option<Waker>,
    waiting_writer: Option<Waker>,
}

/// The pipe is closed, and no bytes are left to read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl Pipe {
    /// Waits until a read returns bytes or [`Closed`].
    pub(super) fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.queued.is_empty() || state.writer_closed {
            return Poll::Ready(());
        }
        wait(&mut state.waiting_reader, cx)
    }

    /// Waits until there is room or the pipe is closed.
    pub(super) fn poll_writable(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.free() > 0 || state.is_closed_for_writing() {
            return Poll::Ready(());
        }
        wait(&mut state.waiting_writer, cx)
    }

    /// Passes the next bytes, at most `max`, to `put`, in one or two pieces. Returns their
    /// number, which is 0 if none are queued now or `max` is 0.
    ///
    /// # Errors
    ///
    /// Once the writer is closed and everything was read.
    pub(super) fn read(&self, max: usize, mut put: impl FnMut(&[u8])) -> Result<usize, Closed> {
        let mut state = self.lock();
        if state.queued.is_empty() && state.writer_closed {
            return Err(Closed);
        }
        let len = max.min(state.queued.len());
        if len == 0 {
            return Ok(0);
        }
        let (front, back) = state.queued.as_slices();
        let split = len.min(front.len());
        put(&front[..split]);
        put(&back[..len - split]);
        state.queued.drain(..len);
        let writer = state.waiting_writer.take();
        drop(state);
        writer.into_iter().for_each(Waker::wake);
        Ok(len)
    }

    /// Returns how much room there is, in bytes.
    ///
    /// # Errors
    ///
    /// Once either end is closed.
    pub(super) fn free(&self) -> Result<usize, Closed> {
        let state = self.lock();
        if state.is_closed_for_writing() {
            return Err(Closed);
        }
        Ok(state.free())
    }

    /// Appends as many bytes as there is room for. Returns their number.
    ///
    /// # Errors
    ///
    /// Once either end is closed.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<usize, Closed> {
        let mut state = self.lock();
        if state.is_closed_for_writing() {
            return Err(Closed);
        }
        let len = bytes.len().min(state.free());
        if len == 0 {
            return Ok(0);
        }
        state.queued.extend(&bytes[..len]);
        let reader = state.waiting_reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
        Ok(len)
    }

    /// Closes the writing end: the reader gets the queued bytes, then the end.
    pub(super) fn close_writer(&self) {
        let mut state = self.lock();
        state.writer_closed = true;
        let waiting = state.take_waiters();
        drop(state);
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// Closes the reading end: refuses further writes and drops the queued bytes.
    pub(super) fn close_reader(&self) {
        let mut state = self.lock();
        state.reader_closed = true;
        state.queued = VecDeque::new();
        let waiting = state.take_waiters();
        drop(state);
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No change can panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn free(&self) -> usize {
        CAPACITY - self.queued.len()
    }

    fn is_closed_for_writing(&self) -> bool {
        self.reader_closed || self.writer_closed
    }

    fn take_waiters(&mut self) -> [Option<Waker>; 2] {
        [self.waiting_reader.take(), self.waiting_writer.take()]
    }
}

fn wait(slot: &mut Option<Waker>, cx: &Context<'_>) -> Poll<()> {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
    Poll::Pending
}

/// The host's end of a guest's stdin. Dropping it closes the pipe.
pub(super) struct HostWriter(pub(super) Pipe);

impl AsyncWrite for HostWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.0.poll_writable(cx));
        let written = self.0.write(bytes);
        Poll::Ready(written.map_err(|Closed| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.close_writer();
        Poll::Ready(Ok(()))
    }
}

impl Drop for HostWriter {
    fn drop(&mut self) {
        self.0.close_writer();
    }
}

/// The host's end of a guest's stdout. Dropping it closes the pipe.
pub(super) struct HostReader(pub(super) Pipe);

impl AsyncRead for HostReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.0.poll_readable(cx));
        // At the end nothing is read, which this trait defines as end-of-file.
        let _end = self.0.read(buf.remaining(), |piece| buf.put_slice(piece));
        Poll::Ready(Ok(()))
    }
}

impl Drop for HostReader {
    fn drop(&mut self) {
        self.0.close_reader();
    }
}

#[cfg(test)]
mod tests;
