//! One direction of a component's stdio: a bounded buffer between host and guest.
//!
//! No task and no channel: both ends usually live in the same task, so bytes cross
//! under one short lock, and a waker is called only when the other end waits for
//! just what has changed.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much one pipe holds, in bytes: as much as a pipe of the kernel.
pub(super) const CAPACITY: usize = 64 << 10;

/// A pipe. Its clones are the same pipe.
///
/// Each end has room for one waiter: the guest runs as one task, and so does the host.
#[derive(Clone, Default)]
pub(super) struct Pipe(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    queued: VecDeque<u8>,
    writer_gone: bool,
    reader_gone: bool,
    waiting_reader: Option<Waker>,
    waiting_writer: Option<Waker>,
}

/// There is nothing more to read, or nobody left to write to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl Pipe {
    /// Waits until a read finds something: bytes or the end.
    pub(super) fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.queued.is_empty() || state.writer_gone {
            return Poll::Ready(());
        }
        wait(&mut state.waiting_reader, cx)
    }

    /// Waits until a write gets somewhere: there is room, or nobody reads any more.
    pub(super) fn poll_writable(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.free() > 0 || state.is_closed_for_writing() {
            return Poll::Ready(());
        }
        wait(&mut state.waiting_writer, cx)
    }

    /// Hands the next bytes, `max` at most, to `put`, in one or two pieces. Returns
    /// how many there were; 0 when none are there now, or `max` is 0.
    ///
    /// # Errors
    ///
    /// Once the writer is gone and everything was read.
    pub(super) fn read(&self, max: usize, mut put: impl FnMut(&[u8])) -> Result<usize, Closed> {
        let mut state = self.lock();
        if state.queued.is_empty() && state.writer_gone {
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
        wake(writer);
        Ok(len)
    }

    /// Tells how much room there is.
    ///
    /// # Errors
    ///
    /// Once nobody reads any more.
    pub(super) fn free(&self) -> Result<usize, Closed> {
        let state = self.lock();
        if state.is_closed_for_writing() {
            return Err(Closed);
        }
        Ok(state.free())
    }

    /// Appends what there is room for, and tells how much that was.
    ///
    /// # Errors
    ///
    /// Once nobody reads any more.
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
        wake(reader);
        Ok(len)
    }

    /// Ends the stream: the reader gets what is queued, then the end.
    pub(super) fn close_writer(&self) {
        let mut state = self.lock();
        state.writer_gone = true;
        let waiting = state.take_waiters();
        drop(state);
        waiting.into_iter().for_each(wake);
    }

    /// Refuses further writes and drops what nobody will read.
    pub(super) fn close_reader(&self) {
        let mut state = self.lock();
        state.reader_gone = true;
        state.queued = VecDeque::new();
        let waiting = state.take_waiters();
        drop(state);
        waiting.into_iter().for_each(wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs in the middle of a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn free(&self) -> usize {
        CAPACITY - self.queued.len()
    }

    fn is_closed_for_writing(&self) -> bool {
        self.reader_gone || self.writer_gone
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

/// Called without the lock: a waker may do anything.
fn wake(waiting: Option<Waker>) {
    if let Some(waker) = waiting {
        waker.wake();
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_readable(cx));
        match self.read(buf.remaining(), |piece| buf.put_slice(piece)) {
            // An empty read is how this trait says that the end is reached.
            Ok(_) | Err(Closed) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_writable(cx));
        let written = self.write(bytes);
        Poll::Ready(written.map_err(|Closed| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close_writer();
        Poll::Ready(Ok(()))
    }
}

/// Where the host writes. Dropping it ends the stream.
pub(super) struct HostWriter(Pipe);

impl HostWriter {
    pub(super) fn new(pipe: Pipe) -> Self {
        Self(pipe)
    }
}

impl AsyncWrite for HostWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Drop for HostWriter {
    fn drop(&mut self) {
        self.0.close_writer();
    }
}

/// Where the host reads. Dropping it closes the pipe for the guest.
pub(super) struct HostReader(Pipe);

impl HostReader {
    pub(super) fn new(pipe: Pipe) -> Self {
        Self(pipe)
    }
}

impl AsyncRead for HostReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Drop for HostReader {
    fn drop(&mut self) {
        self.0.close_reader();
    }
}

#[cfg(test)]
mod tests;
