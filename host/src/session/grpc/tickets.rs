//! Tickets: what a plugin shows with each call, so that it is known who calls.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Random bytes in a ticket: as many as the reference takes.
const TICKET: usize = 64;

/// What a plugin shows to be served. Known to the host and that one plugin.
pub(super) struct Ticket(String);

/// What is kept of a ticket. Comparing two tells nothing by the time that it takes: how
/// much of them is equal has nothing to do with how much of the tickets is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TicketHash([u8; 32]);

impl Ticket {
    /// Makes one that nobody can guess.
    pub(super) fn new() -> Self {
        Self(BASE64_STANDARD_NO_PAD.encode(rand::random::<[u8; TICKET]>()))
    }

    pub(super) fn hash(&self) -> TicketHash {
        TicketHash::of(self.0.as_bytes())
    }

    /// Returns the line by which a plugin learns where to call, and with which ticket.
    ///
    /// The reference's plugins refuse one with anything else in it.
    pub(super) fn handshake(&self, port: u16) -> String {
        let Self(ticket) = self;
        format!("{{\"port\":{port},\"ticket\":\"{ticket}\"}}\n")
    }
}

impl TicketHash {
    /// Hashes what was shown as a ticket.
    pub(super) fn of(shown: &[u8]) -> Self {
        Self(Sha256::digest(shown).into())
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_one_line_of_json_with_two_fields() {
        let ticket = Ticket(String::from("a+/b"));
        let line = ticket.handshake(4321);
        assert_eq!(line, "{\"port\":4321,\"ticket\":\"a+/b\"}\n");
    }

    #[test]
    fn a_ticket_is_as_long_as_the_references_and_never_the_same() {
        let (one, other) = (Ticket::new(), Ticket::new());
        assert_eq!(one.0.len(), 86);
        assert_ne!(one.hash(), other.hash());
        assert_eq!(one.hash(), TicketHash::of(one.0.as_bytes()));
    }
}
