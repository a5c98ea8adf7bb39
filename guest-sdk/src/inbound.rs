//! Decodes the frames of the host, and checks their order; performs no I/O.

use admission_proto::frame::{self, FrameError, PLUGIN_LIMIT};
use admission_proto::wire::plugin::Admission;
use admission_proto::wire::stdio::{Hello, HostFrame, ListMetadataReply, host_frame::Frame};
use admission_proto::{Wire, quote_bytes};
use bytes::BytesMut;

use crate::RunError;
use crate::detect_wire::detect_wire;

/// A frame of the host that the protocol allows at its time.
#[derive(Debug, PartialEq)]
pub(crate) enum Inbound {
    Hello(Hello),
    Admission(Admission),
    MetadataReply(ListMetadataReply),
}

/// Decodes the host's bytes.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    buf: BytesMut,
    stage: Stage,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The first two bytes, which identify the wire, have not arrived.
    #[default]
    WireUnknown,
    AwaitingHello,
    Connected,
}

impl FrameReader {
    /// Appends bytes as they arrive.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Takes the next whole frame. Skips frames of a kind that this SDK does not know.
    pub(crate) fn next(&mut self) -> Result<Option<Inbound>, RunError> {
        if self.stage == Stage::WireUnknown {
            match detect_wire(&self.buf) {
                None => return Ok(None),
                Some(Wire::Grpc) => return Err(RunError::GrpcWire),
                Some(Wire::Stdio) => self.stage = Stage::AwaitingHello,
            }
        }
        loop {
            let frame = match frame::take::<HostFrame>(&mut self.buf, PLUGIN_LIMIT) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.to_run_error(error)),
            };
            if let Some(frame) = frame.frame {
                return self.check_order(frame).map(Some);
            }
        }
    }

    /// Accepts the end of stdin between two frames.
    pub(crate) fn finish(&self) -> Result<(), RunError> {
        frame::finish(&self.buf).map_err(|error| self.to_run_error(error))
    }

    fn check_order(&mut self, frame: Frame) -> Result<Inbound, RunError> {
        let is_connected = self.stage == Stage::Connected;
        match frame {
            Frame::Hello(_) if is_connected => Err(RunError::OutOfTurn("a second hello")),
            Frame::Hello(hello) => {
                self.stage = Stage::Connected;
                Ok(Inbound::Hello(hello))
            }
            Frame::Admission(_) if !is_connected => {
                Err(RunError::OutOfTurn("an admission before its hello"))
            }
            Frame::Admission(admission) => Ok(Inbound::Admission(admission)),
            Frame::ListMetadataReply(_) if !is_connected => {
                Err(RunError::OutOfTurn("a reply before its hello"))
            }
            Frame::ListMetadataReply(reply) => Ok(Inbound::MetadataReply(reply)),
        }
    }

    fn to_run_error(&self, error: FrameError) -> RunError {
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

    fn reader(bytes: &[u8]) -> FrameReader {
        let mut reader = FrameReader::default();
        reader.push(bytes);
        reader
    }

    fn error(bytes: &[u8]) -> String {
        let mut reader = reader(bytes);
        loop {
            match reader.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{bytes:?} are valid"),
                Err(error) => return error.to_string(),
            }
        }
    }

    #[test]
    fn a_handshake_line_of_the_grpc_wire_is_detected() {
        assert!(error(br#"{"port":1,"ticket":"x"}"#).contains("gRPC"));
        assert!(error(b"{ ").contains("gRPC"));
        for space in [" ", "\t", "\r", "\n"] {
            let line = format!(r#"{space}{{"port":1,"ticket":"x"}}"#);
            assert!(error(line.as_bytes()).contains("gRPC"), "{line:?}");
        }
    }

    #[test]
    fn a_hello_of_any_length_is_not_a_handshake_line() {
        for n in 0..200 {
            let bytes = encoded([hello(&"n".repeat(n))]);
            let mut reader = reader(&bytes);
            assert!(matches!(reader.next(), Ok(Some(Inbound::Hello(_)))), "{n}");
        }
    }

    #[test]
    fn one_byte_does_not_identify_the_wire() {
        assert!(matches!(reader(b"{").next(), Ok(None)));
    }

    #[test]
    fn a_frame_before_hello_and_a_second_hello_break_the_protocol() {
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
        let mut reader = reader(&bytes);
        assert!(matches!(reader.next(), Ok(Some(Inbound::Hello(_)))));
        assert!(matches!(reader.next(), Ok(Some(Inbound::Admission(_)))));
        assert!(matches!(reader.next(), Ok(None)));
        assert!(reader.finish().is_ok());
    }

    #[test]
    fn an_error_quotes_bytes_that_are_not_a_frame() {
        assert!(error(b"\0\x1b[2J").contains(r#""\x00\x1b[2J""#));
    }

    #[test]
    fn an_end_inside_a_frame_is_an_error() {
        let bytes = encoded([hello("host")]);
        let mut reader = reader(&bytes[..5]);
        assert!(matches!(reader.next(), Ok(None)));
        assert!(reader.finish().is_err());
    }
}
