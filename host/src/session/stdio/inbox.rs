//! Frames from the plugin: from bytes to events, and what may be said when.

use std::time::Instant;

use admission_proto::frame::{self, FrameError};
use admission_proto::wire::plugin::{LogRequest, ResolveAdmissionRequest};
use admission_proto::wire::stdio::{ListMetadataCall, PluginFrame, plugin_frame};
use admission_proto::{Status, quote_bytes};
use bytes::BytesMut;

use crate::error_kind::ErrorKind;
use crate::log::LogLevel;
use crate::session::{Event, MetadataCall, Violation, listing};

/// What was read and is not a whole frame yet.
#[derive(Debug)]
pub(super) struct Inbox {
    buf: BytesMut,
    /// Longest frame that is accepted, in bytes.
    limit: usize,
    /// When the first byte of the frame in `buf` was read.
    since: Option<Instant>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Only log lines may come before `list_admissions`.
    Connecting,
    Connected,
    /// What comes is dropped: the protocol was broken, or the host has stopped listening.
    Ignored,
}

impl Inbox {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            buf: BytesMut::new(),
            limit,
            since: None,
            stage: Stage::Connecting,
        }
    }

    /// Takes what was read and adds what it says to `events`.
    pub(super) fn take(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        if self.stage == Stage::Ignored {
            return;
        }
        let begun = !self.buf.is_empty();
        self.buf.extend_from_slice(bytes);
        let mut frames = 0;
        loop {
            match self.next() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(violation) => {
                    events.push(Event::Violation(violation));
                    self.ignore();
                    return;
                }
            }
            frames += 1;
        }
        if self.buf.is_empty() {
            self.since = None;
        } else if !begun || frames > 0 {
            self.since = Some(Instant::now());
        }
    }

    /// Drops what comes from now on.
    pub(super) fn ignore(&mut self) {
        self.stage = Stage::Ignored;
        self.buf = BytesMut::new();
        self.since = None;
    }

    pub(super) fn frame_since(&self) -> Option<Instant> {
        self.since
    }

    pub(super) fn stall(&self) -> Violation {
        Violation {
            kind: ErrorKind::Stall,
            text: format!(
                "the admission plugin stopped in the middle of a frame, after {} bytes: {}",
                self.buf.len(),
                self.seen()
            ),
        }
    }

    /// Quotes what is there of a frame that will not go on.
    pub(super) fn torn(&self) -> Option<String> {
        frame::finish(&self.buf).is_err().then(|| self.seen())
    }

    fn next(&mut self) -> Result<Option<Event>, Violation> {
        let message = frame::take::<PluginFrame>(&mut self.buf, self.limit);
        let Some(message) = message.map_err(|error| self.bad_frame(&error))? else {
            return Ok(None);
        };
        let Some(frame) = message.frame else {
            return Ok(Some(Event::Unknown));
        };
        self.event(frame).map(Some)
    }

    fn event(&mut self, frame: plugin_frame::Frame) -> Result<Event, Violation> {
        use plugin_frame::Frame;
        match (self.stage, frame) {
            (_, Frame::Log(log)) => Ok(log_line(log)),
            (Stage::Connecting, Frame::ListAdmissions(request)) => {
                self.stage = Stage::Connected;
                Ok(Event::Connected {
                    protocol_version: request.protocol_version,
                    plugin_version: request.plugin_version,
                })
            }
            (_, Frame::ListAdmissions(_)) => Err(violation("a second list_admissions".into())),
            (Stage::Connecting, Frame::ResolveAdmission(verdict)) => Err(violation(format!(
                "a verdict on admission {} before list_admissions",
                quote(&verdict.admission_id)
            ))),
            (Stage::Connecting, Frame::ListMetadata(call)) => Err(violation(format!(
                "metadata call {} before list_admissions",
                call.call_id
            ))),
            (_, Frame::ResolveAdmission(verdict)) => resolved(verdict),
            (_, Frame::ListMetadata(call)) => metadata_call(call),
        }
    }

    fn bad_frame(&self, error: &FrameError) -> Violation {
        violation(format!("{error}: {}", self.seen()))
    }

    /// Quotes what is there, and says what to do about it if it was printed.
    fn seen(&self) -> String {
        let hint = if looks_like_text(&self.buf) {
            "; stdout is the wire: log to stderr"
        } else {
            ""
        };
        format!("{}{hint}", quote_bytes(&self.buf))
    }
}

fn violation(what: String) -> Violation {
    Violation::protocol(&what)
}

fn log_line(log: LogRequest) -> Event {
    Event::Log {
        level: LogLevel::from_severity(&log.severity),
        message: log.message,
    }
}

fn resolved(verdict: ResolveAdmissionRequest) -> Result<Event, Violation> {
    let Some(status) = verdict.status else {
        return Err(violation(format!(
            "a verdict on admission {} without a status",
            quote(&verdict.admission_id)
        )));
    };
    Ok(Event::Resolved {
        admission_id: verdict.admission_id,
        status: Status::from(status),
    })
}

fn metadata_call(call: ListMetadataCall) -> Result<Event, Violation> {
    let Some(mut request) = call.request else {
        return Err(violation(format!(
            "metadata call {} without a request",
            call.call_id
        )));
    };
    Ok(Event::MetadataCall(MetadataCall {
        call_id: call.call_id,
        admission_id: Some(call.admission_id),
        service_url: std::mem::take(&mut request.service_url),
        request: listing::asked(request),
    }))
}

fn quote(text: &str) -> String {
    quote_bytes(text.as_bytes())
}

/// Tells whether the bytes seem to have been printed rather than encoded.
///
/// A frame has a control character among its first four bytes: the tag of what it
/// holds, or the tag or length of what that begins with.
fn looks_like_text(bytes: &[u8]) -> bool {
    let seen = &bytes[..bytes.len().min(4)];
    let printable = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..);
    seen.len() >= 2 && seen.iter().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use admission_proto::wire::{plugin, rpc};
    use plugin_frame::Frame;

    fn bytes(frame: Frame) -> Vec<u8> {
        let mut out = Vec::new();
        frame::encode(&PluginFrame { frame: Some(frame) }, &mut out);
        out
    }

    fn connect() -> Vec<u8> {
        bytes(Frame::ListAdmissions(plugin::ListAdmissionsRequest {
            protocol_version: 1,
            plugin_version: "test".into(),
        }))
    }

    fn verdict(status: Option<rpc::Status>) -> Vec<u8> {
        bytes(Frame::ResolveAdmission(ResolveAdmissionRequest {
            admission_id: "id".into(),
            status,
        }))
    }

    fn hear(pieces: &[&[u8]]) -> Vec<Event> {
        let mut inbox = Inbox::new(frame::HOST_LIMIT);
        let mut events = Vec::new();
        pieces
            .iter()
            .for_each(|piece| inbox.take(piece, &mut events));
        events
    }

    fn violation_of(pieces: &[&[u8]]) -> String {
        match hear(pieces).pop() {
            Some(Event::Violation(violation)) => violation.text,
            other => panic!("not a violation: {other:?}"),
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_quoted() {
        let banner = "hello, world! ".repeat(10);
        assert_eq!(
            violation_of(&[banner.as_bytes()]),
            "the admission plugin broke the protocol: a frame of 104 bytes cannot be decoded: \
             \"hello, world! hello, world! hello, world! hello, world! hello, w\" and 76 more bytes\
             ; stdout is the wire: log to stderr"
        );
        assert_eq!(
            violation_of(&[&[0]]),
            r#"the admission plugin broke the protocol: a frame is empty: "\x00""#
        );
    }

    #[test]
    fn only_log_lines_may_come_before_list_admissions() {
        let log = bytes(Frame::Log(LogRequest::default()));
        assert!(matches!(
            hear(&[&log, &connect()])[..],
            [Event::Log { .. }, Event::Connected { .. }]
        ));
        assert_eq!(
            violation_of(&[&verdict(None)]),
            r#"the admission plugin broke the protocol: a verdict on admission "id" before list_admissions"#
        );
        let call = bytes(Frame::ListMetadata(ListMetadataCall::default()));
        assert_eq!(
            violation_of(&[&call]),
            "the admission plugin broke the protocol: metadata call 0 before list_admissions"
        );
    }

    #[test]
    fn a_second_list_admissions_is_a_violation() {
        assert_eq!(
            violation_of(&[&connect(), &connect()]),
            "the admission plugin broke the protocol: a second list_admissions"
        );
    }

    #[test]
    fn a_verdict_without_a_status_is_a_violation() {
        assert_eq!(
            violation_of(&[&connect(), &verdict(None)]),
            r#"the admission plugin broke the protocol: a verdict on admission "id" without a status"#
        );
    }

    #[test]
    fn nothing_is_heard_after_a_violation() {
        let admitted = verdict(Some(rpc::Status::default()));
        let events = hear(&[&connect(), &[0], &admitted]);
        assert!(matches!(
            events[..],
            [Event::Connected { .. }, Event::Violation(_)]
        ));
    }

    #[test]
    fn a_frame_of_the_future_is_told_apart() {
        // Field 15 of the envelope, a varint.
        assert!(matches!(hear(&[&[2, 0x78, 1]])[..], [Event::Unknown]));
    }

    #[test]
    fn a_frame_is_waited_for_from_its_first_byte() {
        let mut inbox = Inbox::new(frame::HOST_LIMIT);
        let mut events = Vec::new();
        let whole = connect();
        inbox.take(&whole[..1], &mut events);
        let since = inbox.frame_since().expect("it has begun");
        inbox.take(&whole[1..3], &mut events);
        assert_eq!(inbox.frame_since(), Some(since));
        assert!(inbox.torn().is_some());
        inbox.take(&whole[3..], &mut events);
        assert_eq!(inbox.frame_since(), None);
        assert_eq!(inbox.torn(), None);
    }
}
