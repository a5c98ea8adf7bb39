//! A conversation over the reference's wire: the plugin calls a server of the host.
//!
//! Its stdin carries one line, which tells it where to call and with which ticket, and
//! stays open until it is asked to finish. Its stdout belongs to nobody, and is logged.

mod connection;
mod gate;
mod incoming;
mod line;
mod portions;
mod server;
mod services;
mod status;
mod tickets;
mod visitor;

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use admission_proto::Status;
use admission_proto::wire::plugin::Admission;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

pub(crate) use self::server::{Registration, Server};
use super::{Event, PARTING, Replies, Session, listing};
use crate::repository::MetadataPage;
use crate::transport::stderr::StderrLog;
use crate::transport::{Exit, Instance, Launched, Remains};

/// Read at once, in bytes.
const CHUNK: usize = 8 << 10;

/// A plugin, its registration with the server, and its three streams.
pub(crate) struct GrpcSession {
    /// `None` once the plugin was asked to finish, or has ended.
    stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    handshake: String,
    /// How much of the handshake is written.
    written: usize,
    /// `None` once it has ended.
    stdout: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Takes the lines of stdout.
    log: StderrLog,
    instance: Box<dyn Instance>,
    registration: Registration,
    finishing: bool,
    /// Kept until what was said before the end has been heard.
    exit: Option<Exit>,
    /// How long that is waited for.
    parting: Pin<Box<Sleep>>,
}

impl GrpcSession {
    /// Opens the conversation with a plugin that was registered before. Lines of its
    /// stdout go to `log`.
    pub(crate) fn new(launched: Launched, registration: Registration, log: StderrLog) -> Self {
        Self {
            stdin: Some(launched.stdin),
            handshake: registration.handshake(),
            written: 0,
            stdout: Some(launched.stdout),
            log,
            instance: launched.instance,
            registration,
            finishing: false,
            exit: None,
            parting: Box::pin(tokio::time::sleep(PARTING)),
        }
    }

    /// Returns whether anything was written, or stdin was ended.
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
                // The plugin reads nothing. Why not, its exit or its silence will tell.
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

    /// Returns whether the plugin has ended just now.
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> bool {
        if self.exit.is_some() {
            return false;
        }
        let Poll::Ready(exit) = self.instance.poll_exit(cx) else {
            return false;
        };
        self.exit = Some(exit);
        self.stdin = None;
        // Who shows the ticket from now on is somebody else.
        self.registration.revoke();
        self.parting.as_mut().reset(Instant::now() + PARTING);
        true
    }

    /// Returns whether anything was read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stdout) = &mut self.stdout else {
            return false;
        };
        let mut chunk = [0; CHUNK];
        let mut buf = ReadBuf::new(&mut chunk);
        match stdout.as_mut().poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.log.write(buf.filled()),
            // An output that cannot be read has ended.
            Poll::Ready(_) => {
                self.stdout = None;
                self.log.finish();
            }
            Poll::Pending => return false,
        }
        true
    }

    /// Tells whether all that the plugin had to say has come in, or will not.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.exit.is_some()
            && self.stdout.is_none()
            && (!self.registration.line.is_connected() || self.parting.as_mut().poll(cx).is_ready())
    }
}

impl Session for GrpcSession {
    fn poll(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> Poll<()> {
        let wrote = self.poll_write(cx);
        let ended = self.poll_exit(cx);
        let read = self.poll_read(cx);
        // Asked before the last events are taken: there are none after them.
        let over = self.is_over(cx);
        let heard = self.registration.line.poll_events(cx, events);
        if let (true, Some(exit)) = (over, &self.exit) {
            let exit = exit.clone();
            events.push(Event::Exited { exit, torn: None });
        }
        if wrote || ended || read || heard || over {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// There is no limit but the plugin's flow control.
    fn most_out(&self, _: usize) -> usize {
        if self.registration.line.has_room() {
            usize::MAX
        } else {
            0
        }
    }

    fn admit(&mut self, admission: Admission) {
        self.registration.line.admit(admission);
    }

    /// Ends the stream of admissions and the plugin's stdin.
    fn finish(&mut self) {
        self.finishing = true;
        self.registration.line.finish();
    }

    fn kill(&mut self) {
        self.instance.kill();
    }

    fn ignore_output(&mut self) {
        self.registration.line.ignore();
    }

    fn is_exiting(&self) -> bool {
        self.instance.is_exiting()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Remains> {
        self.instance.poll_gone(cx)
    }
}

impl Replies for GrpcSession {
    fn reply(&mut self, call_id: u64, page: Result<MetadataPage, Status>) {
        let answer = listing::answer(page);
        self.registration.line.answer(call_id, answer);
    }

    fn unwritten_replies(&self) -> usize {
        self.registration.line.unwritten()
    }
}
