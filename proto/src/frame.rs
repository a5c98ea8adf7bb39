//! Length-delimited frames: a protobuf varint, then that many bytes of one message.
//!
//! This is protobuf's "delimited" format. The codec is incremental and performs no I/O: the
//! caller appends bytes to a buffer as they arrive, [`take`] removes whole messages from its
//! front, and [`finish`] checks that the stream did not end inside a frame.
//!
//! ```
//! use admission_proto::frame::{self, HOST_LIMIT};
//! use admission_proto::wire::stdio::{PluginFrame, plugin_frame::Frame};
//!
//! let connect = PluginFrame {
//!     frame: Some(Frame::ListAdmissions(Default::default())),
//! };
//! let mut encoded = Vec::new();
//! frame::encode(&connect, &mut encoded);
//!
//! let mut buf = bytes::BytesMut::from(&encoded[..]);
//! assert_eq!(frame::take(&mut buf, HOST_LIMIT)?, Some(connect));
//! frame::finish(&buf)?;
//! # Ok::<(), frame::FrameError>(())
//! ```

use bytes::{Buf, BytesMut};
use prost::{DecodeError, Message};

/// Longest frame that a host accepts by default, in bytes without the length prefix. Bounds
/// the memory that a hostile length prefix can make the host allocate.
pub const HOST_LIMIT: usize = 1 << 20;

/// Longest frame that a plugin must accept, in bytes without the length prefix. The largest
/// frames of a host are pages of metadata, in which one value may have 512 KiB.
pub const PLUGIN_LIMIT: usize = 4 << 20;

/// Longest length prefix, in bytes. 2^28 - 1 is far beyond any frame, so a fifth byte means
/// that the peer speaks another protocol.
const MAX_PREFIX: usize = 4;

/// An error in a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is 0. Every message of the protocol has at least one byte.
    #[error("a frame is empty")]
    Empty,
    /// The length is not a varint in its shortest form, or has more than 4 bytes.
    #[error("a frame's length is not a minimal varint")]
    Length,
    /// The length exceeds the reader's limit.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    #[non_exhaustive]
    TooLong {
        /// Length of the frame, in bytes.
        length: usize,
        /// Limit of the reader, in bytes.
        limit: usize,
    },
    /// The frame is complete but cannot be decoded as the expected message.
    #[error("a frame of {length} bytes cannot be decoded")]
    #[non_exhaustive]
    Undecodable {
        /// Length of the frame, in bytes.
        length: usize,
        /// Why it cannot be decoded.
        #[source]
        source: DecodeError,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, after {have} bytes of it")]
    #[non_exhaustive]
    Torn {
        /// Number of bytes that arrived of the frame, including the length prefix.
        have: usize,
    },
}

/// Appends `message` as one frame.
pub fn encode(message: &impl Message, out: &mut Vec<u8>) {
    message
        .encode_length_delimited(out)
        .expect("a vector has room for any message");
}

/// Takes one message off the front of `buf`.
///
/// Returns `Ok(None)` and leaves `buf` unchanged if `buf` has no complete frame. Memory for the
/// rest of a frame is reserved only after its length was checked against `limit`.
///
/// # Errors
///
/// Any [`FrameError`] except `Torn`. An error leaves `buf` unchanged, so that the caller can
/// quote it. The rest of the stream cannot be decoded.
pub fn take<M: Message + Default>(
    buf: &mut BytesMut,
    limit: usize,
) -> Result<Option<M>, FrameError> {
    let Some((length, prefix)) = parse_length(buf)? else {
        return Ok(None);
    };
    if length == 0 {
        return Err(FrameError::Empty);
    }
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    let whole = prefix + length;
    if buf.len() < whole {
        buf.reserve(whole - buf.len());
        return Ok(None);
    }
    let message = M::decode(&buf[prefix..whole])
        .map_err(|source| FrameError::Undecodable { length, source })?;
    buf.advance(whole);
    Ok(Some(message))
}

/// Checks that no bytes are left in `buf` at the end of the stream.
///
/// # Errors
///
/// [`FrameError::Torn`] if the stream ended inside a frame.
pub fn finish(buf: &[u8]) -> Result<(), FrameError> {
    match buf.len() {
        0 => Ok(()),
        have => Err(FrameError::Torn { have }),
    }
}

/// Returns the length of the frame and of its prefix, or `None` if the prefix is incomplete.
fn parse_length(buf: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
    let mut length = 0;
    for (i, &byte) in buf.iter().take(MAX_PREFIX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let minimal = byte != 0 || i == 0;
            return if minimal {
                Ok(Some((length, i + 1)))
            } else {
                Err(FrameError::Length)
            };
        }
    }
    if buf.len() < MAX_PREFIX {
        Ok(None)
    } else {
        Err(FrameError::Length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::plugin::LogRequest;

    fn frame(message: &str) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&log(message), &mut out);
        out
    }

    fn log(message: &str) -> LogRequest {
        LogRequest {
            severity: "info".into(),
            message: message.into(),
        }
    }

    fn take_log(bytes: &[u8], limit: usize) -> Result<Option<LogRequest>, FrameError> {
        take(&mut BytesMut::from(bytes), limit)
    }

    #[test]
    fn a_partial_frame_leaves_the_buffer_unchanged() {
        let whole = frame("hello");
        for end in 0..whole.len() {
            let mut buf = BytesMut::from(&whole[..end]);
            assert_eq!(take::<LogRequest>(&mut buf, 100), Ok(None));
            assert_eq!(buf, whole[..end]);
        }
    }

    #[test]
    fn a_length_over_the_limit_is_rejected_without_allocation() {
        let mut buf = BytesMut::from(&[0xff, 0xff, 0xff, 0x7f][..]);
        let room = buf.capacity();
        let error = take::<LogRequest>(&mut buf, HOST_LIMIT).expect_err("too long");
        assert_eq!(
            error.to_string(),
            "a frame of 268435455 bytes is over the limit of 1048576"
        );
        assert_eq!(buf.capacity(), room);
    }

    #[test]
    fn a_frame_as_long_as_the_limit_is_accepted() {
        let bytes = frame("exactly");
        let limit = bytes.len() - 1;
        assert!(take_log(&bytes, limit).expect("within the limit").is_some());
        assert!(take_log(&bytes, limit - 1).is_err());
    }

    #[test]
    fn a_length_that_is_not_a_minimal_varint_is_rejected() {
        for bytes in [
            &[0x80, 0x00][..],
            &[0x81, 0x80, 0x00],
            &[0xff; 11],
            &[0x80; 4],
        ] {
            assert_eq!(take_log(bytes, HOST_LIMIT), Err(FrameError::Length));
        }
    }

    #[test]
    fn an_empty_frame_is_rejected() {
        assert_eq!(take_log(&[0], 1), Err(FrameError::Empty));
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_an_error() {
        assert_eq!(finish(&[]), Ok(()));
        let torn = finish(&[3, 1]).expect_err("torn");
        assert_eq!(
            torn.to_string(),
            "the stream ended inside a frame, after 2 bytes of it"
        );
    }
}
