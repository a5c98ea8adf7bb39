//! Stdin and stdout of a component.

use std::cell::RefCell;
use std::{io, mem};

use futures_util::FutureExt as _;
use wasip2::cli::stdin::get_stdin;
use wasip2::cli::stdout::get_stdout;
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

use crate::session::Session;
use crate::{RunError, outbox};

/// Bytes of one read: about 400 admissions.
const READ_SIZE: u64 = 64 << 10;

/// Most bytes that `blocking_write_and_flush` accepts; more would trap.
const BLOCKING_WRITE: usize = 4096;

thread_local! {
    /// Global so that the panic hook can find it. It is borrowed only during WASI calls, never
    /// while a handler is polled.
    static OUTPUT: RefCell<Option<Output>> = const { RefCell::new(None) };
}

/// Stdin, with the bytes that the host sends.
pub(super) struct Input {
    // WASI requires that the pollable is dropped before its stream, so it comes first.
    ready: Pollable,
    stream: InputStream,
}

/// Stdout, and the frames that are being written to it.
struct Output {
    ready: Pollable,
    stream: OutputStream,
    /// Whole frames.
    bytes: Vec<u8>,
    /// Number of verdicts in `bytes`.
    verdicts: usize,
    /// How many of `bytes` are written.
    written: usize,
    /// Whether the stream may hold written bytes that were not flushed.
    unflushed: bool,
}

/// The result of a write that does not wait.
pub(super) enum Progress {
    /// Everything is written.
    Done,
    /// The host has to read first.
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

    /// Reads the available bytes, perhaps none. Returns `None` at the end.
    pub(super) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        end_if_closed(self.stream.read(READ_SIZE))
    }

    /// Reads at least one byte. Returns `None` at the end.
    pub(super) fn blocking_read(&self) -> io::Result<Option<Vec<u8>>> {
        end_if_closed(self.stream.blocking_read(READ_SIZE))
    }
}

/// Opens stdout. Must be called before the other functions.
pub(super) fn open_output() {
    let stream = get_stdout();
    OUTPUT.set(Some(Output {
        ready: stream.subscribe(),
        stream,
        bytes: Vec::new(),
        verdicts: 0,
        written: 0,
        unflushed: false,
    }));
}

/// Writes as much as it can without waiting.
pub(super) fn write(session: &Session) -> Result<Progress, RunError> {
    with_output(|output| output.write(session)).map_err(|source| write_error(session, source))
}

/// Writes everything, waiting for the host. Starts with the rest of a partial frame.
pub(super) fn write_all(session: &Session) -> Result<(), RunError> {
    with_output(|output| output.write_blocking(session))
        .map_err(|source| write_error(session, source))
}

/// Waits until there is something to read or room to write.
pub(super) fn wait_for_either(input: &Input) {
    with_output(|output| {
        poll(&[&input.ready, &output.ready]);
    });
}

/// Writes everything, from within a panic hook.
pub(super) fn write_before_trap(session: &Session) {
    OUTPUT.with(|output| {
        // If the output is borrowed already, the panic came from this file.
        if let Ok(mut output) = output.try_borrow_mut()
            && let Some(output) = &mut *output
        {
            // Nothing can handle an error here. The host will see the trap.
            let _ = output.write_blocking(session);
        }
    });
}

fn with_output<T>(body: impl FnOnce(&mut Output) -> T) -> T {
    OUTPUT.with_borrow_mut(|output| body(output.as_mut().expect("`open_output` was called")))
}

impl Output {
    fn write(&mut self, session: &Session) -> io::Result<Progress> {
        while self.fill(session) {
            let permit = self.stream.check_write().map_err(io_error)?;
            if permit == 0 {
                return Ok(Progress::Blocked);
            }
            let rest = &self.bytes[self.written..];
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

    fn write_blocking(&mut self, session: &Session) -> io::Result<()> {
        while self.fill(session) {
            let rest = &self.bytes[self.written..];
            let piece = &rest[..rest.len().min(BLOCKING_WRITE)];
            self.stream
                .blocking_write_and_flush(piece)
                .map_err(io_error)?;
            self.written += piece.len();
        }
        Ok(())
    }

    /// Returns whether there are bytes to write. Takes the next batch if there are not.
    fn fill(&mut self, session: &Session) -> bool {
        if self.written < self.bytes.len() {
            return true;
        }
        session.verdicts_written(mem::take(&mut self.verdicts));
        self.written = 0;
        self.bytes.clear();
        // `None` if the outbox is empty; `Some(None)` if it is also closed.
        if let Some(Some(batch)) = session.outbox.take().now_or_never() {
            self.verdicts = outbox::encode(batch, &mut self.bytes);
        }
        !self.bytes.is_empty()
    }
}

fn write_error(session: &Session, source: io::Error) -> RunError {
    RunError::Write {
        pending: session.pending(),
        source,
    }
}

fn end_if_closed(read: Result<Vec<u8>, StreamError>) -> io::Result<Option<Vec<u8>>> {
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
