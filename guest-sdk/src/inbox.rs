//! What the host says, frame by frame; performs no I/O.

use admission_proto::frame::{self, FrameError, PLUGIN_LIMIT};
use admission_proto::quote_bytes;
use admission_proto::wire::plugin::Admission;
use admission_proto::wire::stdio::{Hello, HostFrame, ListMetadataReply, host_frame::Frame};
use bytes::BytesMut;

use crate::RunError;

/// Takes the host's bytes in and hands its frames out.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    buf: BytesMut,
    stage: Stage,
}

/// What a host speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Frames over stdin and stdout.
    Stdio,
    /// gRPC over a port that a line on stdin names.
    Grpc,
}

/// Tells the wires apart by the first two bytes that a host sends.
pub(crate) fn wire(bytes: &[u8]) -> Option<Wire> {
    match bytes {
        [] | [_] => None,
        // The second byte of a hello is its tag, a line feed, which no handshake line has
        // there. Nor are blanks before one a frame: an error would quote the ticket.
        [b'{' | b' ' | b'\t' | b'\r' | b'\n', second, ..] if *second != b'\n' => Some(Wire::Grpc),
        _ => Some(Wire::Stdio),
    }
}

/// How far the host has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not two bytes yet: they tell the wires apart.
    #[default]
    Unopened,
    /// Frames, but no hello yet.
    Opened,
    /// The hello is there.
    Greeted,
}

/// One thing that the host said, in an order that makes sense.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Hello(Hello),
    Admission(Admission),
    Reply(ListMetadataReply),
}

impl Inbox {
    /// Appends bytes as they arrive.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Takes what the next whole frame says; frames of a newer host are skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Heard>, RunError> {
        if self.stage == Stage::Unopened && !self.open()? {
            return Ok(None);
        }
        loop {
            let frame = match frame::take::<HostFrame>(&mut self.buf, PLUGIN_LIMIT) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.broken(error)),
            };
            if let Some(frame) = frame.frame {
                return self.order(frame).map(Some);
            }
        }
    }

    /// Accepts the end of stdin if it comes between two frames.
    pub(crate) fn finish(&self) -> Result<(), RunError> {
        frame::finish(&self.buf).map_err(|error| self.broken(error))
    }

    /// Returns whether two bytes are there, if they may open this protocol.
    fn open(&mut self) -> Result<bool, RunError> {
        match wire(&self.buf) {
            None => return Ok(false),
            Some(Wire::Grpc) => return Err(RunError::GrpcWire),
            Some(Wire::Stdio) => self.stage = Stage::Opened,
        }
        Ok(true)
    }

    fn order(&mut self, frame: Frame) -> Result<Heard, RunError> {
        let greeted = self.stage == Stage::Greeted;
        match frame {
            Frame::Hello(_) if greeted => Err(RunError::OutOfTurn("a second hello")),
            Frame::Hello(hello) => {
                self.stage = Stage::Greeted;
                Ok(Heard::Hello(hello))
            }
            Frame::Admission(_) if !greeted => {
                Err(RunError::OutOfTurn("an admission before its hello"))
            }
            Frame::Admission(admission) => Ok(Heard::Admission(admission)),
            Frame::ListMetadataReply(_) if !greeted => {
                Err(RunError::OutOfTurn("a reply before its hello"))
            }
            Frame::ListMetadataReply(reply) => Ok(Heard::Reply(reply)),
        }
    }

    fn broken(&self, error: FrameError) -> RunError {
        RunError::Frame {
            seen: quote_bytes(&self.buf),
            source: Box::new(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(host_name: &str) -> Frame {
        Frame::Hello(Hello {
            protocol_version: 1,
            host_name: host_name.into(),
            ..Hello::default()
        })
    }

    fn encoded(frames: impl IntoIterator<Item = Frame>) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            frame::encode(&HostFrame { frame: Some(frame) }, &mut out);
        }
        out
    }

    fn inbox(bytes: &[u8]) -> Inbox {
        let mut inbox = Inbox::default();
        inbox.extend(bytes);
        inbox
    }

    fn error(bytes: &[u8]) -> String {
        let mut inbox = inbox(bytes);
        loop {
            match inbox.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{bytes:?} are fine"),
                Err(error) => return error.to_string(),
            }
        }
    }

    #[test]
    fn a_handshake_line_of_the_grpc_wire_is_told_apart() {
        assert!(error(br#"{"port":1,"ticket":"x"}"#).contains("gRPC"));
        assert!(error(b"{ ").contains("gRPC"));
        for blank in [" ", "\t", "\r", "\n"] {
            let line = format!(r#"{blank}{{"port":1,"ticket":"x"}}"#);
            assert!(error(line.as_bytes()).contains("gRPC"), "{line:?}");
        }
    }

    #[test]
    fn a_hello_of_any_length_is_no_handshake_line() {
        for n in 0..200 {
            let bytes = encoded([hello(&"n".repeat(n))]);
            let mut inbox = inbox(&bytes);
            assert!(matches!(inbox.next(), Ok(Some(Heard::Hello(_)))), "{n}");
        }
    }

    #[test]
    fn one_byte_tells_nothing() {
        assert!(matches!(inbox(b"{").next(), Ok(None)));
    }

    #[test]
    fn what_comes_before_hello_or_twice_is_a_violation() {
        let admission = Frame::Admission(Admission::default());
        let reply = Frame::ListMetadataReply(ListMetadataReply::default());
        assert!(error(&encoded([admission])).ends_with("an admission before its hello"));
        assert!(error(&encoded([reply])).ends_with("a reply before its hello"));
        assert!(error(&encoded([hello(""), hello("")])).ends_with("a second hello"));
    }

    #[test]
    fn frames_of_a_newer_host_are_skipped() {
        let mut bytes = encoded([hello("")]);
        bytes.extend([3, 0x7a, 1, b'x']);
        bytes.extend(encoded([Frame::Admission(Admission::default())]));
        let mut inbox = inbox(&bytes);
        assert!(matches!(inbox.next(), Ok(Some(Heard::Hello(_)))));
        assert!(matches!(inbox.next(), Ok(Some(Heard::Admission(_)))));
        assert!(matches!(inbox.next(), Ok(None)));
        assert!(inbox.finish().is_ok());
    }

    #[test]
    fn bytes_that_are_no_frame_are_quoted() {
        assert!(error(b"\0\x1b[2J").contains(r#""\x00\x1b[2J""#));
    }

    #[test]
    fn an_end_inside_a_frame_is_an_error() {
        let bytes = encoded([hello("host")]);
        let mut inbox = inbox(&bytes[..5]);
        assert!(matches!(inbox.next(), Ok(None)));
        assert!(inbox.finish().is_err());
    }
}
