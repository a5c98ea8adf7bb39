//! A session over stdio: frames on the plugin's stdin and stdout.

mod inbox;
mod outbox;
mod stall;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use admission_proto::Status;
use admission_proto::wire::plugin;
use admission_proto::wire::stdio::{Hello, host_frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Event, Session, SessionEvents};
use crate::repository::MetadataPage;
use inbox::Inbox;
use outbox::Outbox;
use stall::StallTimer;

/// Size of one read, in bytes: the capacity of a pipe.
const CHUNK: usize = 64 << 10;

/// The two streams of a plugin and the frames on them.
pub(crate) struct StdioSession {
    /// `None` after it was closed.
    stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// `None` after end-of-file.
    stdout: Option<Pin<Box<dyn AsyncRead + Send>>>,
    outbox: Outbox,
    inbox: Inbox,
    /// Set when the plugin was asked to shut down, or has exited.
    finishing: bool,
    stall_timer: StallTimer,
    chunk: Box<[u8]>,
}

impl StdioSession {
    /// Opens the session with `hello`.
    pub(crate) fn new(
        stdin: Pin<Box<dyn AsyncWrite + Send>>,
        stdout: Pin<Box<dyn AsyncRead + Send>>,
        hello: Hello,
        events: Arc<dyn SessionEvents>,
    ) -> Self {
        let limit = usize::try_from(hello.max_frame_size).expect("the limit is 1 MiB");
        let mut outbox = Outbox::default();
        outbox.push(host_frame::Frame::Hello(hello));
        Self {
            stdin: Some(stdin),
            stdout: Some(stdout),
            outbox,
            inbox: Inbox::new(limit, events),
            finishing: false,
            stall_timer: StallTimer::new(),
            chunk: vec![0; CHUNK].into(),
        }
    }

    fn close_stdin(&mut self) {
        self.stdin = None;
        self.outbox = Outbox::default();
    }

    /// Returns whether anything was read.
    fn poll_stdout(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> bool {
        let Some(stdout) = &mut self.stdout else {
            return false;
        };
        let mut buf = ReadBuf::new(&mut self.chunk);
        match stdout.as_mut().poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                self.inbox.receive(buf.filled(), events);
            }
            // A read error counts as end-of-file.
            Poll::Ready(_) => {
                self.stdout = None;
                if !self.finishing {
                    let text = "the admission plugin closed its output";
                    events.push(Event::OutputEnded { text });
                }
            }
            Poll::Pending => return false,
        }
        true
    }
}

impl Session for StdioSession {
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stdin) = &mut self.stdin else {
            return false;
        };
        let mut wrote = false;
        while let Some(bytes) = self.outbox.next() {
            match stdin.as_mut().poll_write(cx, bytes) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    self.outbox.advance(n);
                    wrote = true;
                }
                // The plugin closed its stdin, which is not an error. It fails only if it
                // exits or closes its output.
                Poll::Ready(_) => {
                    self.close_stdin();
                    return true;
                }
                Poll::Pending => return wrote,
            }
        }
        if self.finishing {
            // End-of-file is the one request to shut down that every transport understands.
            self.close_stdin();
            return true;
        }
        wrote
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> bool {
        let read = self.poll_stdout(cx, events);
        // A plugin that was asked to shut down may complete the frame within its grace.
        let frame_since = self.inbox.frame_since().filter(|_| !self.finishing);
        let stalled = self.stall_timer.poll(cx, frame_since);
        if stalled {
            events.push(Event::Failed(self.inbox.stall()));
            self.inbox.ignore();
        }
        read || stalled
    }

    fn poll_drained(&mut self, _: &mut Context<'_>) -> Poll<()> {
        match self.stdout {
            Some(_) => Poll::Pending,
            None => Poll::Ready(()),
        }
    }

    fn capacity(&self, max_in_flight: usize) -> usize {
        let has_room = self.stdin.is_some() && !self.finishing && self.outbox.has_room();
        if has_room { max_in_flight } else { 0 }
    }

    fn send_admission(&mut self, admission: plugin::Admission) {
        self.outbox.push(host_frame::Frame::Admission(admission));
    }

    fn reply(&mut self, call_id: u64, page: Result<MetadataPage, Status>) {
        if self.stdin.is_some() && !self.finishing {
            self.outbox.push_reply(call_id, page);
        }
    }

    fn unwritten_replies(&self) -> usize {
        self.outbox.replies()
    }

    fn finish(&mut self) {
        self.outbox.keep_half_written();
        self.finishing = true;
    }

    fn process_exited(&mut self) {
        self.close_stdin();
        self.finishing = true;
    }

    fn unfinished_frame(&self) -> Option<String> {
        self.inbox.unfinished_frame()
    }
}
