//! The line by which a host that speaks gRPC tells where it is.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use super::stdio::Input;
use crate::RunError;
use crate::inbox::{Wire, wire};

/// Longest handshake line, in bytes. The reference's has some 120.
const LIMIT: usize = 4 << 10;

/// Where the host listens, and what it knows the plugin by.
#[derive(Deserialize, PartialEq)]
pub(super) struct Handshake {
    /// A port of 127.0.0.1.
    #[serde(deserialize_with = "port")]
    pub(super) port: u16,
    /// Goes with every call.
    pub(super) ticket: String,
}

/// What is wrong with a handshake.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// Stdin ended before the line did.
    #[error("stdin ended inside the line")]
    Torn,
    /// No handshake is that long.
    #[error("no line feed within {LIMIT} bytes")]
    TooLong,
    /// The line is not the JSON that it should be.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Reads the line of which `bytes` are the first bytes; what follows is of no meaning.
///
/// # Errors
///
/// [`RunError::Handshake`], [`RunError::Read`], and [`RunError::StdioWire`] if it is none.
pub(super) fn read(input: &Input, mut bytes: Vec<u8>) -> Result<Handshake, RunError> {
    let broken = |error| RunError::Handshake(Box::new(error));
    if wire(&bytes) == Some(Wire::Stdio) {
        return Err(RunError::StdioWire);
    }
    let mut more = [0; 512];
    loop {
        if let Some(handshake) = Handshake::take(&bytes).map_err(broken)? {
            return Ok(handshake);
        }
        match input.read(&mut more)? {
            0 => return Err(broken(HandshakeError::Torn)),
            count => bytes.extend_from_slice(&more[..count]),
        }
    }
}

/// Reads until stdin ends, which is all that is to be heard after the handshake.
pub(super) fn drain(input: &Input) -> Result<(), RunError> {
    let mut bytes = [0; 512];
    while input.read(&mut bytes)? > 0 {}
    Ok(())
}

impl Handshake {
    /// Takes the line at the front of `bytes`. Returns `Ok(None)` until it is whole.
    ///
    /// Fields that it does not know are those of a newer host.
    pub(super) fn take(bytes: &[u8]) -> Result<Option<Self>, HandshakeError> {
        let within = &bytes[..bytes.len().min(LIMIT)];
        match within.iter().position(|&byte| byte == b'\n') {
            Some(end) => Ok(Some(serde_json::from_slice(&within[..end])?)),
            None if bytes.len() < LIMIT => Ok(None),
            None => Err(HandshakeError::TooLong),
        }
    }
}

impl fmt::Debug for Handshake {
    /// The ticket is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Reads a number or, as protobuf's JSON allows, a quoted one.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    struct Port;

    impl Visitor<'_> for Port {
        type Value = u16;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a port")
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<u16, E> {
            match u16::try_from(number) {
                Ok(port @ 1..) => Ok(port),
                _ => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
            }
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u16, E> {
            match text.parse() {
                Ok(number) => self.visit_u64(number),
                Err(_) => Err(E::invalid_value(Unexpected::Str(text), &self)),
            }
        }
    }

    deserializer.deserialize_any(Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &[u8]) -> String {
        Handshake::take(line)
            .expect_err("the line is wrong")
            .to_string()
    }

    #[test]
    fn the_port_is_a_number_or_a_quoted_one_and_blanks_do_not_count() {
        for line in [
            &b"{\"port\":33401,\"ticket\":\"a+/b\"}\n"[..],
            b"{\"port\": 33401, \"ticket\":\"a+/b\"}\r\n",
            b"{ \"ticket\":\"a+/b\", \"port\":\"33401\" }\nand more",
            b"{\"port\":33401,\"ticket\":\"a+/b\",\"newer\":[{}]}\n",
        ] {
            let handshake = Handshake::take(line).expect("it is fine").expect("whole");
            assert_eq!(handshake.port, 33401);
            assert_eq!(handshake.ticket, "a+/b");
        }
    }

    #[test]
    fn a_line_is_awaited_up_to_its_limit() {
        assert_eq!(Handshake::take(b"{\"port\":1").expect("so far"), None);
        let mut long = vec![b' '; LIMIT - 1];
        long[0] = b'{';
        assert_eq!(Handshake::take(&long).expect("so far"), None);
        long.push(b' ');
        assert_eq!(error(&long), "no line feed within 4096 bytes");
        long.push(b'\n');
        assert_eq!(error(&long), "no line feed within 4096 bytes");
    }

    #[test]
    fn what_is_wrong_is_said_and_where() {
        for (line, what) in [
            ("{\"port\":1}\n", "missing field `ticket`"),
            ("{\"ticket\":\"t\"}\n", "missing field `port`"),
            (
                "{\"port\":0,\"ticket\":\"t\"}\n",
                "invalid value: integer `0`, expected a port",
            ),
            (
                "{\"port\":65536,\"ticket\":\"t\"}\n",
                "invalid value: integer `65536`, expected a port",
            ),
            (
                "{\"port\":\"x\",\"ticket\":\"t\"}\n",
                "invalid value: string \"x\", expected a port",
            ),
            (
                "{\"port\":-1,\"ticket\":\"t\"}\n",
                "invalid type: integer `-1`, expected a port",
            ),
            ("{\"port\":1,\"ticket\":\"t\"} {}\n", "trailing characters"),
            ("{garbage\n", "key must be a string"),
        ] {
            assert!(error(line.as_bytes()).starts_with(what), "{line}");
        }
    }

    #[test]
    fn the_ticket_stands_in_no_debug_output() {
        let line = b"{\"port\":1,\"ticket\":\"secret\"}\n";
        let handshake = Handshake::take(line).expect("it is fine").expect("whole");
        assert!(!format!("{handshake:?}").contains("secret"));
    }
}
