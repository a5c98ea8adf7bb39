//! Length-delimited frames: a protobuf varint, then that many bytes of one message.
//!
//! This is protobuf's own "delimited" form. The codec is incremental and performs
//! no I/O: bytes are appended to a buffer as they arrive, [`take`] removes whole
//! messages from its front, and [`finish`] tells a clean end from a torn one.

use bytes::{Buf, BytesMut};
use prost::{DecodeError, Message};

/// Longest frame a host accepts unless told otherwise, in bytes without its
/// length. Bounds what a hostile length can make it allocate.
pub const HOST_LIMIT: usize = 1 << 20;

/// Longest frame a plugin must accept, in bytes without its length. A page of
/// metadata is the largest thing a host sends, and one value may be 512 KiB.
pub const PLUGIN_LIMIT: usize = 4 << 20;

/// Longest encoded length, in bytes: 2^28 - 1 is far beyond any frame, and a
/// fifth byte can only come from a peer that speaks something else.
const MAX_PREFIX: usize = 4;

/// What is wrong with the bytes of a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame of length 0; every message of the protocol has at least one byte.
    #[error("a frame is empty")]
    Empty,
    /// The length is not a varint in its shortest form.
    #[error("a frame's length is not a minimal varint")]
    Length,
    /// The length exceeds the reader's limit.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// Length announced, in bytes.
        length: usize,
        /// Limit of the reader, in bytes.
        limit: usize,
    },
    /// The frame is whole but does not decode as the message expected.
    #[error("a frame of {length} bytes cannot be decoded")]
    Undecodable {
        /// Length of the frame, in bytes.
        length: usize,
        /// What protobuf says of it.
        #[source]
        source: DecodeError,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, after {have} bytes of it")]
    Torn {
        /// Bytes of the frame that did arrive, its length included.
        have: usize,
    },
}

/// Appends `message` as one frame.
pub fn encode(message: &impl Message, out: &mut Vec<u8>) {
    message
        .encode_length_delimited(out)
        .expect("a vector grows as needed");
}

/// Takes one message off the front of `buf`.
///
/// Returns `Ok(None)`, leaving `buf` as it was, until a whole frame is there. Room
/// for the rest of a frame is reserved only once its length is known to be within
/// `limit`.
///
/// # Errors
///
/// Any [`FrameError`] but `Torn`. `buf` is left as it was, so that the caller can
/// quote what was seen; the stream cannot be read on.
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

/// Accepts the end of the stream if `buf`, what is left of it, is empty.
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

/// Returns the length and how many bytes it takes, or `None` if it is not whole.
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
    fn a_frame_that_is_not_whole_leaves_the_buffer_as_it_was() {
        let whole = frame("hello");
        for end in 0..whole.len() {
            let mut buf = BytesMut::from(&whole[..end]);
            assert_eq!(take::<LogRequest>(&mut buf, 100), Ok(None));
            assert_eq!(buf, whole[..end]);
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_allocated() {
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
    fn a_frame_as_long_as_the_limit_is_taken() {
        let bytes = frame("exactly");
        let limit = bytes.len() - 1;
        assert!(take_log(&bytes, limit).expect("within the limit").is_some());
        assert!(take_log(&bytes, limit - 1).is_err());
    }

    #[test]
    fn lengths_that_are_no_minimal_varint_are_refused() {
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
    fn an_empty_frame_is_refused() {
        assert_eq!(take_log(&[0], 1), Err(FrameError::Empty));
    }

    #[test]
    fn a_clean_end_is_told_from_a_torn_one() {
        assert_eq!(finish(&[]), Ok(()));
        let torn = finish(&[3, 1]).expect_err("torn");
        assert_eq!(
            torn.to_string(),
            "the stream ended inside a frame, after 2 bytes of it"
        );
    }
}
