//! Decodes the frames from the plugin, and checks that the protocol allows them.

use std::sync::Arc;
use std::time::Instant;

use admission_proto::quote_bytes;
use admission_proto::wire::stdio::{PluginFrame, plugin_frame};
use admission_proto::{LogLevel, frame};
use bytes::BytesMut;

use crate::error_kind::ErrorKind;
use crate::session::{Event, MetadataCall, SessionError, SessionEvents, listing};

/// Decodes frames, applies verdicts and log lines, and turns the others into events.
pub(super) struct Inbox {
    events: Arc<dyn SessionEvents>,
    /// The bytes of an incomplete frame.
    buf: BytesMut,
    /// Longest frame that is accepted, in bytes.
    limit: usize,
    /// When the first byte of the frame in `buf` was read.
    since: Option<Instant>,
    accepts: Accepts,
}

/// Which frames the protocol allows next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepts {
    /// Log lines and `list_admissions`.
    ListAdmissions,
    /// All but `list_admissions`.
    Verdicts,
    /// No frames: all input is discarded.
    Nothing,
}

impl Inbox {
    pub(super) fn new(limit: usize, events: Arc<dyn SessionEvents>) -> Self {
        Self {
            events,
            buf: BytesMut::new(),
            limit,
            since: None,
            accepts: Accepts::ListAdmissions,
        }
    }

    /// Decodes the frames that `bytes` complete. Applies verdicts and log lines at once, and
    /// adds the other frames to `events`.
    pub(super) fn receive(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        if self.accepts == Accepts::Nothing {
            return;
        }
        let was_incomplete = !self.buf.is_empty();
        self.buf.extend_from_slice(bytes);
        let mut frames = 0;
        loop {
            match self.handle_next(events) {
                Ok(true) => frames += 1,
                Ok(false) => break,
                Err(error) => {
                    events.push(Event::Failed(error));
                    self.ignore();
                    return;
                }
            }
        }
        if self.buf.is_empty() {
            self.since = None;
        } else if !was_incomplete || frames > 0 {
            self.since = Some(Instant::now());
        }
    }

    /// Discards all further input.
    pub(super) fn ignore(&mut self) {
        self.accepts = Accepts::Nothing;
        self.buf = BytesMut::new();
        self.since = None;
    }

    pub(super) fn frame_since(&self) -> Option<Instant> {
        self.since
    }

    /// Creates the error of a plugin that stopped in the middle of a frame.
    pub(super) fn stall(&self) -> SessionError {
        SessionError {
            kind: ErrorKind::Stall,
            text: format!(
                "the admission plugin stopped in the middle of a frame, after {} bytes: {}",
                self.buf.len(),
                self.quote_buffer()
            ),
        }
    }

    /// Quotes the incomplete frame in the buffer, if there is one.
    pub(super) fn unfinished_frame(&self) -> Option<String> {
        frame::finish(&self.buf)
            .is_err()
            .then(|| self.quote_buffer())
    }

    /// Handles the first frame. Returns whether it was complete.
    fn handle_next(&mut self, events: &mut Vec<Event>) -> Result<bool, SessionError> {
        let message = frame::take::<PluginFrame>(&mut self.buf, self.limit)
            .map_err(|error| violation(format!("{error}: {}", self.quote_buffer())))?;
        let Some(message) = message else {
            return Ok(false);
        };
        match message.frame {
            Some(frame) => self.handle(frame, events)?,
            None => self.events.count_unknown_frame(),
        }
        Ok(true)
    }

    fn handle(
        &mut self,
        frame: plugin_frame::Frame,
        events: &mut Vec<Event>,
    ) -> Result<(), SessionError> {
        use plugin_frame::Frame;
        let connected = self.accepts == Accepts::Verdicts;
        match frame {
            Frame::Log(log) => {
                let level = LogLevel::from_wire(&log.severity);
                self.events.log(level, &log.message);
            }
            Frame::ListAdmissions(_) if connected => {
                return Err(violation("a second list_admissions".into()));
            }
            Frame::ListAdmissions(request) => {
                self.accepts = Accepts::Verdicts;
                events.push(Event::Connected {
                    protocol_version: request.protocol_version,
                    plugin_version: request.plugin_version,
                });
            }
            Frame::ResolveAdmission(verdict) => {
                let id = verdict.admission_id;
                let error = |how| violation(format!("a verdict on admission {} {how}", quote(&id)));
                if !connected {
                    return Err(error("before list_admissions"));
                }
                let status = verdict.status.ok_or_else(|| error("without a status"))?;
                self.events.settle(&id, status.into());
            }
            Frame::ListMetadata(call) => {
                let call_id = call.call_id;
                let error = |how| violation(format!("metadata call {call_id} {how}"));
                if !connected {
                    return Err(error("before list_admissions"));
                }
                let mut request = call.request.ok_or_else(|| error("without a request"))?;
                events.push(Event::MetadataCall(MetadataCall {
                    call_id,
                    admission_id: Some(call.admission_id),
                    service_url: std::mem::take(&mut request.service_url),
                    request: listing::to_request(request),
                }));
            }
        }
        Ok(())
    }

    /// Quotes the buffer, with advice if it seems to be printed text.
    fn quote_buffer(&self) -> String {
        let hint = if looks_like_text(&self.buf) {
            "; stdout is the wire: log to stderr"
        } else {
            ""
        };
        format!("{}{hint}", quote_bytes(&self.buf))
    }
}

fn violation(what: String) -> SessionError {
    SessionError::protocol(&what)
}

fn quote(text: &str) -> String {
    quote_bytes(text.as_bytes())
}

/// Returns whether the bytes seem to be printed text and not a frame.
///
/// A frame has a control character among its first four bytes: a tag or a length.
fn looks_like_text(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(4)];
    let printable = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..);
    start.len() >= 2 && start.iter().all(printable)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use admission_proto::Status;
    use admission_proto::wire::plugin::{LogRequest, ResolveAdmissionRequest};
    use admission_proto::wire::stdio::ListMetadataCall;
    use admission_proto::wire::{plugin, rpc};
    use plugin_frame::Frame;

    /// Records the frames that are applied at once.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<&'static str>>);

    impl Recorder {
        fn record(&self, what: &'static str) {
            self.0.lock().expect("not poisoned").push(what);
        }
    }

    impl SessionEvents for Recorder {
        fn settle(&self, _: &str, _: Status) {
            self.record("verdict");
        }

        fn log(&self, _: LogLevel, _: &str) {
            self.record("log");
        }

        fn count_unknown_frame(&self) {
            self.record("unknown");
        }
    }

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

    fn inbox() -> (Inbox, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::default());
        let events = Arc::clone(&recorder) as Arc<dyn SessionEvents>;
        (Inbox::new(frame::HOST_LIMIT, events), recorder)
    }

    /// Returns the events of `pieces`, and the frames that were applied at once.
    fn receive(pieces: &[&[u8]]) -> (Vec<Event>, Vec<&'static str>) {
        let (mut inbox, recorder) = inbox();
        let mut events = Vec::new();
        for piece in pieces {
            inbox.receive(piece, &mut events);
        }
        let applied = std::mem::take(&mut *recorder.0.lock().expect("not poisoned"));
        (events, applied)
    }

    fn error_of(pieces: &[&[u8]]) -> String {
        match receive(pieces).0.pop() {
            Some(Event::Failed(error)) => error.text,
            other => panic!("not an error: {other:?}"),
        }
    }

    #[test]
    fn bytes_that_break_the_protocol_are_quoted() {
        let banner = "hello, world! ".repeat(10);
        assert_eq!(
            error_of(&[banner.as_bytes()]),
            "the admission plugin broke the protocol: a frame of 104 bytes cannot be decoded: \
             \"hello, world! hello, world! hello, world! hello, world! hello, w\" and 76 more bytes\
             ; stdout is the wire: log to stderr"
        );
        assert_eq!(
            error_of(&[&[0]]),
            r#"the admission plugin broke the protocol: a frame is empty: "\x00""#
        );
    }

    #[test]
    fn only_log_lines_may_come_before_list_admissions() {
        let log = bytes(Frame::Log(LogRequest::default()));
        let (events, applied) = receive(&[&log, &connect()]);
        assert!(matches!(events[..], [Event::Connected { .. }]));
        assert_eq!(applied, ["log"]);
        assert_eq!(
            error_of(&[&verdict(None)]),
            r#"the admission plugin broke the protocol: a verdict on admission "id" before list_admissions"#
        );
        let call = bytes(Frame::ListMetadata(ListMetadataCall::default()));
        assert_eq!(
            error_of(&[&call]),
            "the admission plugin broke the protocol: metadata call 0 before list_admissions"
        );
    }

    #[test]
    fn a_second_list_admissions_is_a_violation() {
        assert_eq!(
            error_of(&[&connect(), &connect()]),
            "the admission plugin broke the protocol: a second list_admissions"
        );
    }

    #[test]
    fn a_verdict_without_a_status_is_a_violation() {
        assert_eq!(
            error_of(&[&connect(), &verdict(None)]),
            r#"the admission plugin broke the protocol: a verdict on admission "id" without a status"#
        );
    }

    #[test]
    fn nothing_is_received_after_a_violation() {
        let admitted = verdict(Some(rpc::Status::default()));
        let (events, applied) = receive(&[&connect(), &admitted, &[0], &admitted]);
        assert!(matches!(
            events[..],
            [Event::Connected { .. }, Event::Failed(_)]
        ));
        assert_eq!(applied, ["verdict"]);
    }

    #[test]
    fn a_frame_of_a_newer_protocol_is_counted() {
        // Field 15 of the envelope, a varint.
        let (events, applied) = receive(&[&[2, 0x78, 1]]);
        assert!(events.is_empty());
        assert_eq!(applied, ["unknown"]);
    }

    #[test]
    fn the_time_of_a_frame_runs_from_its_first_byte() {
        let (mut inbox, _) = inbox();
        let mut events = Vec::new();
        let whole = connect();
        inbox.receive(&whole[..1], &mut events);
        let since = inbox.frame_since().expect("a frame has begun");
        inbox.receive(&whole[1..3], &mut events);
        assert_eq!(inbox.frame_since(), Some(since));
        assert!(inbox.unfinished_frame().is_some());
        inbox.receive(&whole[3..], &mut events);
        assert_eq!(inbox.frame_since(), None);
        assert_eq!(inbox.unfinished_frame(), None);
    }
}
