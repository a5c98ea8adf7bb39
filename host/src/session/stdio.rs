//! A conversation in frames over two byte streams.
//!
//! One loop writes, lets the plugin run and reads; no step waits for another. A
//! write that is waited for inside it would deadlock as soon as the pipes are full.

mod inbox;
mod outbox;

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use admission_proto::Status;
use admission_proto::wire::plugin;
use admission_proto::wire::stdio::list_metadata_reply;
use admission_proto::wire::stdio::{Hello, HostFrame, ListMetadataReply, host_frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::{Event, Replies, Session, listing};
use crate::repository::MetadataPage;
use crate::transport::{Exit, Instance, Launched, Remains};
use inbox::Inbox;
use outbox::Outbox;

/// Read at once, in bytes: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// How long a frame may take from its first byte to its last.
const FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// A plugin, its two streams, and what is on its way through them.
pub(crate) struct StdioSession {
    /// `None` once the plugin was asked to finish, or has ended.
    stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// `None` once it has ended.
    stdout: Option<Pin<Box<dyn AsyncRead + Send>>>,
    instance: Box<dyn Instance>,
    outbox: Outbox,
    inbox: Inbox,
    /// Set when the plugin is to be asked to finish as soon as a frame is whole.
    finishing: bool,
    /// Kept until what was said before the end has been heard.
    exit: Option<Exit>,
    /// When the frame that has begun is late, while there is one.
    stall: Pin<Box<Sleep>>,
    chunk: Box<[u8]>,
}

impl StdioSession {
    /// Opens the conversation with `hello`.
    pub(crate) fn new(launched: Launched, hello: Hello) -> Self {
        let limit = usize::try_from(hello.max_frame_size).expect("a limit we have chosen");
        let mut session = Self {
            stdin: Some(launched.stdin),
            stdout: Some(launched.stdout),
            instance: launched.instance,
            outbox: Outbox::default(),
            inbox: Inbox::new(limit),
            finishing: false,
            exit: None,
            stall: Box::pin(tokio::time::sleep(FRAME_TIMEOUT)),
            chunk: vec![0; CHUNK].into(),
        };
        session.send(host_frame::Frame::Hello(hello));
        session
    }

    fn send(&mut self, frame: host_frame::Frame) {
        self.outbox.push(&HostFrame { frame: Some(frame) });
    }

    /// Returns whether anything was written, or stdin was ended.
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
                // The plugin does not read any more. Why not, its exit or its silence
                // will tell; a broken pipe is never itself an error.
                Poll::Ready(_) => {
                    self.end_stdin();
                    return true;
                }
                Poll::Pending => return wrote,
            }
        }
        if self.finishing {
            // End-of-file is the one request to finish that every transport understands.
            self.end_stdin();
            return true;
        }
        wrote
    }

    fn end_stdin(&mut self) {
        self.stdin = None;
        self.outbox = Outbox::default();
    }

    /// Returns whether the plugin has ended just now.
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> bool {
        if self.exit.is_some() {
            return false;
        }
        let Poll::Ready(exit) = self.instance.poll_exit(cx) else {
            return false;
        };
        self.exit = Some(exit);
        self.end_stdin();
        true
    }

    /// Returns whether anything was heard.
    fn poll_read(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> bool {
        let Some(stdout) = &mut self.stdout else {
            return self.report_exit(events);
        };
        let mut buf = ReadBuf::new(&mut self.chunk);
        match stdout.as_mut().poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                self.inbox.take(buf.filled(), events);
            }
            // An output that cannot be read has ended.
            Poll::Ready(_) => {
                self.stdout = None;
                if self.exit.is_none() {
                    let text = "the admission plugin closed its output";
                    events.push(Event::OutputEnded { text });
                }
            }
            Poll::Pending => return false,
        }
        true
    }

    /// Returns whether a frame has just been given up.
    fn poll_stall(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> bool {
        let Some(since) = self.inbox.frame_since() else {
            return false;
        };
        // Once it was asked to finish, the plugin has until it is killed.
        if self.finishing || self.exit.is_some() {
            return false;
        }
        let deadline = Instant::from_std(since + FRAME_TIMEOUT);
        if self.stall.deadline() != deadline {
            self.stall.as_mut().reset(deadline);
        }
        if self.stall.as_mut().poll(cx).is_pending() {
            return false;
        }
        events.push(Event::Violation(self.inbox.stall()));
        self.inbox.ignore();
        true
    }

    fn report_exit(&mut self, events: &mut Vec<Event>) -> bool {
        let Some(exit) = &self.exit else {
            return false;
        };
        let torn = self.inbox.torn();
        events.push(Event::Exited {
            exit: exit.clone(),
            torn,
        });
        true
    }
}

impl Session for StdioSession {
    fn poll(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> Poll<()> {
        let wrote = self.poll_write(cx);
        let ended = self.poll_exit(cx);
        let read = self.poll_read(cx, events);
        let stalled = self.poll_stall(cx, events);
        if wrote || ended || read || stalled {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn most_out(&self, window: usize) -> usize {
        let has_room = self.stdin.is_some() && !self.finishing && self.outbox.has_room();
        if has_room { window } else { 0 }
    }

    fn admit(&mut self, admission: plugin::Admission) {
        self.send(host_frame::Frame::Admission(admission));
    }

    /// Ends the plugin's stdin after the frame that is half written.
    fn finish(&mut self) {
        self.outbox.keep_only_begun();
        self.finishing = true;
    }

    fn kill(&mut self) {
        self.instance.kill();
    }

    fn ignore_output(&mut self) {
        self.inbox.ignore();
    }

    fn is_exiting(&self) -> bool {
        self.instance.is_exiting()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Remains> {
        self.instance.poll_gone(cx)
    }
}

impl Replies for StdioSession {
    fn reply(&mut self, call_id: u64, page: Result<MetadataPage, Status>) {
        if self.stdin.is_none() || self.finishing {
            return;
        }
        self.outbox.push_reply(call_id, page);
    }

    fn unwritten_replies(&self) -> usize {
        self.outbox.replies()
    }
}

/// Builds the frame that answers a call.
fn reply_frame(call_id: u64, page: Result<MetadataPage, Status>) -> HostFrame {
    let result = match listing::answer(page) {
        Ok((page, _)) => list_metadata_reply::Result::Page(page),
        Err(status) => list_metadata_reply::Result::Status(status.into()),
    };
    let reply = ListMetadataReply {
        call_id,
        result: Some(result),
    };
    HostFrame {
        frame: Some(host_frame::Frame::ListMetadataReply(reply)),
    }
}
