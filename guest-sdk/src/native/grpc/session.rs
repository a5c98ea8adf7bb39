//! One conversation over a connection.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use admission_proto::frame;
use admission_proto::wire::stdio::{
    ListMetadataCall, ListMetadataReply, PluginFrame, list_metadata_reply::Result as PageOrStatus,
    plugin_frame::Frame,
};
use admission_proto::{Code, Status};
use bytes::{Bytes, BytesMut};
use futures_util::future::{AbortHandle, Abortable, BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::task::JoinHandle;

use super::lanes::{Lanes, Speaker, Spoken};
use crate::RunError;
use crate::conversation::{Check, Conversation};
use crate::inbox::Heard;
use crate::native::connection::{Admissions, Connection, Failure};

/// Verdicts and lines that are on their way, or wait to be, at once.
const MAX_SPOKEN: usize = 1024;

/// Checks without a delivered verdict at which no further ones are taken, so that the
/// host keeps them. As many as a host has out at once on the other wire.
const MAX_OWED: usize = 16 << 10;

/// What the wire of a conversation is doing.
pub(super) struct Session<'a> {
    connection: &'a Connection,
    conversation: &'a Conversation,
    /// Ends when the connection is lost.
    serving: JoinHandle<()>,
    /// `None` once the host has ended them.
    admissions: Option<Admissions>,
    /// Frames that are not yet calls.
    frames: BytesMut,
    /// Who said those of them that are lines.
    speakers: vec::IntoIter<Option<Arc<Check>>>,
    /// Whether there is nothing more to come of them.
    closed: bool,
    lanes: Lanes,
    lines: FuturesUnordered<BoxFuture<'static, Speaker>>,
    verdicts: FuturesUnordered<BoxFuture<'static, Result<(), Failure>>>,
    pages: FuturesUnordered<Abortable<BoxFuture<'static, ListMetadataReply>>>,
    /// The pages that are on their way.
    called: Vec<Page>,
}

struct Page {
    call_id: u64,
    admission_id: String,
    abort: AbortHandle,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        serving: JoinHandle<()>,
        conversation: &'a Conversation,
    ) -> Self {
        let admissions = connection.list_admissions(conversation.plugin_version());
        Self {
            connection,
            conversation,
            serving,
            admissions: Some(admissions),
            frames: BytesMut::new(),
            speakers: Vec::new().into_iter(),
            closed: false,
            lanes: Lanes::default(),
            lines: FuturesUnordered::new(),
            verdicts: FuturesUnordered::new(),
            pages: FuturesUnordered::new(),
            called: Vec::new(),
        }
    }

    /// Goes on until the outbox is closed and empty, the host ends the conversation, or
    /// something fails. Checks are given to `start`.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        start: impl Fn(Arc<Check>),
    ) -> Poll<Result<(), RunError>> {
        loop {
            while let Some(frame) = self.next_frame(cx) {
                self.send(frame);
            }
            if !self.hear(cx)? {
                break;
            }
        }
        self.take_admissions(cx, start)?;
        let idle = self.lines.is_empty() && self.verdicts.is_empty();
        let asked_to_end = self.closed;
        let over = self.admissions.is_none() && self.conversation.owed() == 0;
        if idle && (asked_to_end || over) {
            return Poll::Ready(Ok(()));
        }
        if self.serving.poll_unpin(cx).is_ready() {
            // The calls have failed with it; those that matter were heard above.
            return Poll::Ready(self.lost("it has ended".to_owned()));
        }
        Poll::Pending
    }

    /// Takes the next frame that may become a call.
    fn next_frame(&mut self, cx: &mut Context<'_>) -> Option<Frame> {
        if self.verdicts.len() + self.lines.len() + self.lanes.waiting() >= MAX_SPOKEN {
            return None;
        }
        if self.frames.is_empty() {
            match self.conversation.outbox().poll_take(cx) {
                Poll::Ready(Some(batch)) => {
                    self.frames = Bytes::from(batch.bytes).into();
                    self.speakers = batch.speakers.into_iter();
                }
                Poll::Ready(None) => self.closed = true,
                Poll::Pending => {}
            }
        }
        let frame = frame::take::<PluginFrame>(&mut self.frames, usize::MAX)
            .expect("the outbox has frames of ours");
        frame?.frame
    }

    fn send(&mut self, frame: Frame) {
        let spoken = match frame {
            Frame::ResolveAdmission(verdict) => {
                self.abandon_pages(&verdict.admission_id);
                Spoken::Verdict(verdict)
            }
            Frame::Log(line) => {
                let check = self.speakers.next().flatten();
                let speaker = check.map(|check| check.admission.admission_id.clone());
                Spoken::Line(speaker, line)
            }
            Frame::ListMetadata(call) => return self.call(call),
            // Its place is taken by the stream that is open from the start.
            Frame::ListAdmissions(_) => return,
        };
        if let Some(spoken) = self.lanes.enter(spoken) {
            self.speak(spoken);
        }
    }

    fn speak(&mut self, spoken: Spoken) {
        match spoken {
            Spoken::Verdict(verdict) => {
                self.verdicts.push(self.connection.resolve(verdict).boxed());
            }
            Spoken::Line(speaker, line) => {
                // A line that the host does not want is no reason to judge no more; a
                // lost connection ends the stream as well.
                let sent = self.connection.write(line).map(|_| speaker);
                self.lines.push(sent.boxed());
            }
        }
    }

    /// Gives up the pages of a check: it is decided, so nobody waits for them any more.
    fn abandon_pages(&mut self, admission_id: &str) {
        for page in self
            .called
            .extract_if(.., |page| page.admission_id == admission_id)
        {
            page.abort.abort();
        }
    }

    fn call(&mut self, call: ListMetadataCall) {
        let call_id = call.call_id;
        let page = self.connection.page(call.request.unwrap_or_default());
        let reply = page.map(move |outcome| ListMetadataReply {
            call_id,
            result: Some(match outcome {
                Ok(page) => PageOrStatus::Page(page),
                Err(failure) => PageOrStatus::Status(Status::from(failure).into()),
            }),
        });
        let (abort, registration) = AbortHandle::new_pair();
        self.pages.push(Abortable::new(reply.boxed(), registration));
        self.called.push(Page {
            call_id,
            admission_id: call.admission_id,
            abort,
        });
    }

    /// Takes in what calls have come to. Returns whether any has.
    fn hear(&mut self, cx: &mut Context<'_>) -> Result<bool, RunError> {
        let mut any = false;
        while let Poll::Ready(Some(outcome)) = self.verdicts.poll_next_unpin(cx) {
            any = true;
            match outcome {
                // What the host does not want to hear any more is not lost.
                _ if self.closed || self.admissions.is_none() => {}
                Ok(()) => {}
                Err(Failure::Lost(why)) => self.lost(why)?,
                Err(Failure::Host(source)) => {
                    let owed = self.conversation.owed();
                    return Err(RunError::Verdict { owed, source });
                }
            }
            self.conversation.wrote(1);
        }
        while let Poll::Ready(Some(reply)) = self.pages.poll_next_unpin(cx) {
            any = true;
            // One that was aborted is for nobody.
            if let Ok(reply) = reply {
                self.called.retain(|page| page.call_id != reply.call_id);
                self.conversation.hear(Heard::Reply(reply));
            }
        }
        while let Poll::Ready(Some(speaker)) = self.lines.poll_next_unpin(cx) {
            any = true;
            for spoken in self.lanes.arrived(&speaker) {
                self.speak(spoken);
            }
        }
        Ok(any)
    }

    fn take_admissions(
        &mut self,
        cx: &mut Context<'_>,
        start: impl Fn(Arc<Check>),
    ) -> Result<(), RunError> {
        while !self.closed
            && self.conversation.owed() < MAX_OWED
            && let Some(admissions) = &mut self.admissions
            && let Poll::Ready(next) = admissions.poll_next(cx)
        {
            match next {
                Ok(Some(admission)) => {
                    if let Some(check) = self.conversation.hear(Heard::Admission(admission)) {
                        start(check);
                    }
                }
                Ok(None) => self.admissions = None,
                Err(Failure::Lost(why)) => return self.lost(why),
                Err(Failure::Host(status)) if is_farewell(status.code) => self.admissions = None,
                Err(Failure::Host(status)) => return Err(RunError::Stream(status)),
            }
        }
        Ok(())
    }

    /// Tells what it means that the host cannot be heard any more.
    fn lost(&self, why: String) -> Result<(), RunError> {
        match self.admissions {
            // It has said that this would be all.
            None => Ok(()),
            Some(_) => Err(RunError::Lost {
                owed: self.conversation.owed(),
                source: Status::new(Code::UNAVAILABLE, why),
            }),
        }
    }
}

/// Tells whether a host that ends the stream with this code has only had enough.
fn is_farewell(code: Code) -> bool {
    matches!(code, Code::ABORTED | Code::CANCELLED | Code::UNAVAILABLE)
}
