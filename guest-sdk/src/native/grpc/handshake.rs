//! The handshake line, in which a gRPC host sends its port and a ticket.

use std::fmt;
use std::num::NonZeroU16;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::Value;

use crate::RunError;
use crate::native::stdio::Input;

/// Longest handshake line, in bytes. The reference's line has about 120.
const MAX_LINE: usize = 4 << 10;

/// The port on which the host listens, and the ticket of the plugin.
#[derive(Deserialize, PartialEq)]
pub(super) struct Handshake {
    /// A port of 127.0.0.1.
    #[serde(deserialize_with = "deserialize_port")]
    pub(super) port: NonZeroU16,
    /// A secret that authenticates every call.
    pub(super) ticket: String,
}

/// An error in a handshake line.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// Stdin ended inside the line.
    #[error("stdin ended inside the line")]
    UnexpectedEnd,
    /// The line is too long.
    #[error("no line feed within {MAX_LINE} bytes")]
    TooLong,
    /// The line is not the expected JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Handshake {
    /// Reads the rest of the line that starts with `bytes`.
    ///
    /// # Errors
    ///
    /// [`RunError::Handshake`] or [`RunError::Read`].
    pub(super) fn read(input: &Input, mut bytes: Vec<u8>) -> Result<Self, RunError> {
        let invalid = |error| RunError::Handshake(Box::new(error));
        loop {
            if let Some(handshake) = Self::parse(&bytes).map_err(invalid)? {
                return Ok(handshake);
            }
            if !input.read_more(&mut bytes)? {
                return Err(invalid(HandshakeError::UnexpectedEnd));
            }
        }
    }

    /// Parses the line at the start of `bytes`. Returns `Ok(None)` until the line is complete.
    /// Ignores unknown fields, which a newer host may add.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, HandshakeError> {
        let start = &bytes[..bytes.len().min(MAX_LINE)];
        match start.iter().position(|&byte| byte == b'\n') {
            Some(end) => Ok(Some(serde_json::from_slice(&start[..end])?)),
            None if bytes.len() < MAX_LINE => Ok(None),
            None => Err(HandshakeError::TooLong),
        }
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The ticket is a secret.
        f.debug_struct("Handshake")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Deserializes a number, or a string that holds one: protobuf's JSON allows both.
fn deserialize_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU16, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(digits) => digits.parse().map_err(Error::custom),
        number => NonZeroU16::deserialize(number).map_err(Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &[u8]) -> String {
        Handshake::parse(line)
            .expect_err("the line is wrong")
            .to_string()
    }

    #[test]
    fn the_port_may_be_quoted_and_white_space_is_ignored() {
        for line in [
            &b"{\"port\":33401,\"ticket\":\"a+/b\"}\n"[..],
            b"{\"port\": 33401, \"ticket\":\"a+/b\"}\r\n",
            b"{ \"ticket\":\"a+/b\", \"port\":\"33401\" }\nand more",
            b"{\"port\":33401,\"ticket\":\"a+/b\",\"newer\":[{}]}\n",
        ] {
            let handshake = Handshake::parse(line).expect("valid").expect("whole");
            assert_eq!(handshake.port.get(), 33401);
            assert_eq!(handshake.ticket, "a+/b");
        }
    }

    #[test]
    fn a_line_over_the_limit_is_an_error() {
        assert_eq!(
            Handshake::parse(b"{\"port\":1").expect("valid so far"),
            None
        );
        let mut long = vec![b' '; MAX_LINE - 1];
        long[0] = b'{';
        assert_eq!(Handshake::parse(&long).expect("valid so far"), None);
        long.push(b' ');
        assert_eq!(error(&long), "no line feed within 4096 bytes");
        long.push(b'\n');
        assert_eq!(error(&long), "no line feed within 4096 bytes");
    }

    #[test]
    fn an_error_names_the_wrong_field() {
        for (line, what) in [
            ("{\"port\":1}\n", "missing field `ticket`"),
            ("{\"ticket\":\"t\"}\n", "missing field `port`"),
            (
                "{\"port\":0,\"ticket\":\"t\"}\n",
                "invalid value: integer `0`, expected a nonzero u16",
            ),
            (
                "{\"port\":65536,\"ticket\":\"t\"}\n",
                "invalid value: integer `65536`, expected a nonzero u16",
            ),
            (
                "{\"port\":\"x\",\"ticket\":\"t\"}\n",
                "invalid digit found in string",
            ),
            (
                "{\"port\":-1,\"ticket\":\"t\"}\n",
                "invalid value: integer `-1`, expected a nonzero u16",
            ),
            ("{\"port\":1,\"ticket\":\"t\"} {}\n", "trailing characters"),
            ("{garbage\n", "key must be a string"),
        ] {
            assert!(error(line.as_bytes()).starts_with(what), "{line}");
        }
    }

    #[test]
    fn debug_output_hides_the_ticket() {
        let line = b"{\"port\":1,\"ticket\":\"secret\"}\n";
        let handshake = Handshake::parse(line).expect("valid").expect("whole");
        assert!(!format!("{handshake:?}").contains("secret"));
    }
}
