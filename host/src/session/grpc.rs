//! A session over gRPC: the plugin calls a server of the host.
//!
//! The plugin's stdin carries one line, with the port and the ticket, and stays open until
//! the plugin is asked to shut down. Its stdout has no meaning and is logged.

mod authentication;
mod connection;
mod request;
mod server;
mod service;
mod shared;

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use admission_proto::Status;
use admission_proto::wire::plugin::Admission;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

pub(crate) use self::server::{Registration, Server};
use super::{EXIT_GAP, Event, Session, listing};
use crate::repository::MetadataPage;
use crate::transport::stderr::StderrLog;

/// Size of one read, in bytes.
const CHUNK: usize = 8 << 10;

/// The three streams of a plugin and its registration with the server.
pub(crate) struct GrpcSession {
    /// `None` after it was closed.
    stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    handshake: String,
    /// How many bytes of the handshake are written.
    written: usize,
    /// `None` after end-of-file.
    stdout: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Logs the lines of stdout.
    log: StderrLog,
    registration: Registration,
    /// Set when the plugin was asked to shut down.
    finishing: bool,
    /// Expires when the connections of an exited process may not deliver calls any more.
    exit_gap: Pin<Box<Sleep>>,
}

impl GrpcSession {
    /// Opens the session with a plugin that was registered before. Lines of its stdout go
    /// to `log`.
    pub(crate) fn new(
        stdin: Pin<Box<dyn AsyncWrite + Send>>,
        stdout: Pin<Box<dyn AsyncRead + Send>>,
        registration: Registration,
        log: StderrLog,
    ) -> Self {
        Self {
            stdin: Some(stdin),
            handshake: registration.handshake(),
            written: 0,
            stdout: Some(stdout),
            log,
            registration,
            finishing: false,
            exit_gap: Box::pin(tokio::time::sleep(EXIT_GAP)),
        }
    }

    /// Returns whether anything was read.
    fn poll_stdout(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stdout) = &mut self.stdout else {
            return false;
        };
        let mut chunk = [0; CHUNK];
        let mut buf = ReadBuf::new(&mut chunk);
        match stdout.as_mut().poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.log.write(buf.filled()),
            // A read error counts as end-of-file.
            Poll::Ready(_) => {
                self.stdout = None;
                self.log.finish();
            }
            Poll::Pending => return false,
        }
        true
    }
}

impl Session for GrpcSession {
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stdin) = &mut self.stdin else {
            return false;
        };
        let mut wrote = false;
        let half_written = self.written > 0 || !self.finishing;
        while half_written && self.written < self.handshake.len() {
            let rest = &self.handshake.as_bytes()[self.written..];
            match stdin.as_mut().poll_write(cx, rest) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    self.written += n;
                    wrote = true;
                }
                // The plugin closed its stdin, which is not an error. It fails only if it
                // exits or does not connect in time.
                Poll::Ready(_) => {
                    self.stdin = None;
                    return true;
                }
                Poll::Pending => return wrote,
            }
        }
        if self.finishing {
            self.stdin = None;
            return true;
        }
        wrote
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> bool {
        let read = self.poll_stdout(cx);
        let received = self.registration.session.poll_events(cx, events);
        read || received
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stdout.is_some() {
            return Poll::Pending;
        }
        if self.registration.session.is_connected() {
            return self.exit_gap.as_mut().poll(cx);
        }
        Poll::Ready(())
    }

    /// The plugin's own flow control is the limit.
    fn capacity(&self, _: usize) -> usize {
        if self.registration.session.has_room() {
            usize::MAX
        } else {
            0
        }
    }

    fn send_admission(&mut self, admission: Admission) {
        self.registration.session.admit(admission);
    }

    fn reply(&mut self, call_id: u64, page: Result<MetadataPage, Status>) {
        let answer = listing::to_reply(page);
        self.registration.session.reply(call_id, answer);
    }

    fn unwritten_replies(&self) -> usize {
        self.registration.session.unwritten_replies()
    }

    /// Ends the stream of admissions, and closes the plugin's stdin.
    fn finish(&mut self) {
        self.finishing = true;
        self.registration.session.finish();
    }

    fn process_exited(&mut self) {
        self.stdin = None;
        // After the exit, only another process could present the ticket.
        self.registration.revoke_ticket();
        self.exit_gap.as_mut().reset(Instant::now() + EXIT_GAP);
    }
}
