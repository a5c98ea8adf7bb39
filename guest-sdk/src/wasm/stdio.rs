//! Stdin and stdout of a component, without waiting where that can be helped.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, Waker};

use wasip2::cli::stdin::get_stdin;
use wasip2::cli::stdout::get_stdout;
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

use crate::RunError;
use crate::conversation::Conversation;
use crate::outbox::Batch;

/// Bytes asked for at once: some 400 admissions.
const READ_SIZE: u64 = 64 << 10;

/// Most bytes that `blocking_write_and_flush` takes; with more it traps.
const BLOCKING_WRITE: usize = 4096;

thread_local! {
    /// Here rather than in the loop, for a panic's hook has to find it. It is borrowed
    /// during calls of the host only, never while a handler is polled.
    static OUTPUT: RefCell<Option<Output>> = const { RefCell::new(None) };
}

/// Where the host's frames come from.
pub(super) struct Input {
    // Before the stream it belongs to: they are dropped in this order, which is WASI's.
    ready: Pollable,
    stream: InputStream,
}

/// Where ours go, and the frames that are on the way.
struct Output {
    ready: Pollable,
    stream: OutputStream,
    batch: Batch,
    /// Bytes of the batch that are written.
    written: usize,
    /// Whether the stream may still hold some of them back.
    unflushed: bool,
}

/// How far writing has come.
pub(super) enum Progress {
    /// Nothing is left.
    Done,
    /// The host has to take some first.
    Blocked,
}

impl Input {
    pub(super) fn open() -> Self {
        let stream = get_stdin();
        Self {
            ready: stream.subscribe(),
            stream,
        }
    }

    /// Reads what is there, perhaps nothing; `None` is the end.
    pub(super) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        until_closed(self.stream.read(READ_SIZE))
    }

    /// Reads at least one byte; `None` is the end.
    pub(super) fn read_some(&self) -> io::Result<Option<Vec<u8>>> {
        until_closed(self.stream.blocking_read(READ_SIZE))
    }
}

/// Opens stdout. Comes before everything else that concerns it.
pub(super) fn open_output() {
    let stream = get_stdout();
    OUTPUT.set(Some(Output {
        ready: stream.subscribe(),
        stream,
        batch: Batch::default(),
        written: 0,
        unflushed: false,
    }));
}

/// Writes as much as the host takes at once.
pub(super) fn write(conversation: &Conversation) -> Result<Progress, RunError> {
    with_output(|output| output.write(conversation)).map_err(|source| RunError::Write {
        owed: conversation.owed(),
        source,
    })
}

/// Writes everything, however long the host takes.
pub(super) fn write_all(conversation: &Conversation) -> Result<(), RunError> {
    while let Progress::Blocked = write(conversation)? {
        with_output(|output| output.ready.block());
    }
    Ok(())
}

/// Waits until there is something to read or room to write.
pub(super) fn wait_for_either(input: &Input) {
    with_output(|output| {
        poll(&[&input.ready, &output.ready]);
    });
}

/// Writes everything, the rest of a frame first, from within a panic.
pub(super) fn write_before_trap(conversation: &Conversation) {
    OUTPUT.with(|output| {
        // Borrowed means that the panic is this file's; then nothing can be written.
        if let Ok(mut output) = output.try_borrow_mut()
            && let Some(output) = &mut *output
        {
            // An error cannot be told to anybody: the trap is what the host will see.
            let _ = output.write_blocking(conversation);
        }
    });
}

fn with_output<T>(body: impl FnOnce(&mut Output) -> T) -> T {
    OUTPUT.with_borrow_mut(|output| body(output.as_mut().expect("the loop opens it first")))
}

impl Output {
    fn write(&mut self, conversation: &Conversation) -> io::Result<Progress> {
        while self.fill(conversation) {
            let permit = self.stream.check_write().map_err(io_error)?;
            if permit == 0 {
                return Ok(Progress::Blocked);
            }
            let rest = &self.batch.bytes[self.written..];
            let count = usize::try_from(permit).map_or(rest.len(), |most| rest.len().min(most));
            self.stream.write(&rest[..count]).map_err(io_error)?;
            self.written += count;
            self.unflushed = true;
        }
        if self.unflushed {
            self.stream.flush().map_err(io_error)?;
            self.unflushed = false;
        }
        Ok(Progress::Done)
    }

    fn write_blocking(&mut self, conversation: &Conversation) -> io::Result<()> {
        while self.fill(conversation) {
            let rest = &self.batch.bytes[self.written..];
            let piece = &rest[..rest.len().min(BLOCKING_WRITE)];
            self.stream
                .blocking_write_and_flush(piece)
                .map_err(io_error)?;
            self.written += piece.len();
        }
        Ok(())
    }

    /// Returns whether there is something to write, taking the next batch if need be.
    fn fill(&mut self, conversation: &Conversation) -> bool {
        if self.written < self.batch.bytes.len() {
            return true;
        }
        conversation.wrote(self.batch.verdicts);
        self.written = 0;
        let mut cx = Context::from_waker(Waker::noop());
        match conversation.outbox().poll_take(&mut cx) {
            Poll::Ready(Some(batch)) => {
                self.batch = batch;
                true
            }
            Poll::Ready(None) | Poll::Pending => {
                self.batch = Batch::default();
                false
            }
        }
    }
}

fn until_closed(read: Result<Vec<u8>, StreamError>) -> io::Result<Option<Vec<u8>>> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StreamError::Closed) => Ok(None),
        Err(error) => Err(io_error(error)),
    }
}

fn io_error(error: StreamError) -> io::Error {
    match error {
        StreamError::Closed => io::ErrorKind::BrokenPipe.into(),
        StreamError::LastOperationFailed(cause) => io::Error::other(cause.to_debug_string()),
    }
}
