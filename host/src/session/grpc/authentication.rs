//! Authentication of connections: maps each connection to the plugin that opened it.
//!
//! Each plugin gets a [`Ticket`] of its own in the handshake on its stdin, and sends it in
//! a header of every call. The first valid ticket authenticates its connection, and the
//! connection belongs to that plugin until it is closed. A connection that presents no
//! valid ticket is closed after [`AUTHENTICATION_TIMEOUT`], or earlier to make room for newer
//! ones.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use hyper::HeaderMap;
use sha2::{Digest as _, Sha256};
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::shared::{SharedSession, lock};

/// Random bytes in a ticket: as many as in the reference.
const TICKET_BYTES: usize = 64;

/// How long a connection may stay unauthenticated. A plugin sends its ticket with its
/// first call, which may come some time after it connects.
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit of unauthenticated connections of a host. A further one replaces the oldest.
const MAX_UNAUTHENTICATED: usize = 64;

/// Limit of connections of one plugin, which needs only one.
const MAX_PLUGIN_CONNECTIONS: usize = 64;

/// A secret that only the host and one plugin know.
pub(super) struct Ticket(String);

/// The SHA-256 hash of a ticket. The host looks up and compares hashes only, so the time
/// that this takes reveals nothing about a ticket.
type TicketHash = [u8; 32];

/// Issues tickets, and authenticates connections by them.
#[derive(Default)]
pub(super) struct Authenticator {
    sessions: Mutex<HashMap<TicketHash, Arc<SharedSession>>>,
    /// Unauthenticated connections, the oldest first. Some may have been authenticated or
    /// closed since the last one was added.
    unauthenticated: Mutex<VecDeque<Weak<Peer>>>,
}

/// The peer of one connection, unauthenticated until it presents a valid ticket.
pub(super) struct Peer {
    authenticator: Arc<Authenticator>,
    authenticated: SetOnce<Arc<PluginConnection>>,
    /// Cancelled when a newer connection replaces this unauthenticated one.
    replaced: CancellationToken,
}

/// An authenticated connection. Counts as one of its plugin's until it is dropped.
pub(super) struct PluginConnection {
    ticket: TicketHash,
    pub(super) session: Arc<SharedSession>,
}

impl Ticket {
    fn generate() -> Self {
        Self(BASE64_STANDARD_NO_PAD.encode(rand::random::<[u8; TICKET_BYTES]>()))
    }

    /// Returns the handshake line, with the host's port and the ticket.
    ///
    /// The reference's plugins accept no other field.
    pub(super) fn handshake(&self, port: u16) -> String {
        let Self(ticket) = self;
        format!("{{\"port\":{port},\"ticket\":\"{ticket}\"}}\n")
    }
}

fn hash(ticket: &[u8]) -> TicketHash {
    Sha256::digest(ticket).into()
}

impl Authenticator {
    /// Issues a ticket for the plugin of `session`.
    pub(super) fn issue(&self, session: Arc<SharedSession>) -> Ticket {
        let ticket = Ticket::generate();
        lock(&self.sessions).insert(hash(ticket.0.as_bytes()), session);
        ticket
    }

    /// Makes a ticket invalid for new connections.
    pub(super) fn revoke(&self, ticket: &Ticket) {
        let revoked = lock(&self.sessions).remove(&hash(ticket.0.as_bytes()));
        // After the lock is released.
        drop(revoked);
    }

    /// Returns the sessions of all plugins with a valid ticket.
    pub(super) fn sessions(&self) -> Vec<Arc<SharedSession>> {
        lock(&self.sessions).values().cloned().collect()
    }

    /// Adds the peer of a new connection. Replaces the oldest unauthenticated one if there are
    /// too many.
    pub(super) fn add_peer(self: &Arc<Self>) -> Arc<Peer> {
        let mut unauthenticated = lock(&self.unauthenticated);
        unauthenticated.retain(|peer| {
            let peer = peer.upgrade();
            peer.is_some_and(|peer| !peer.authenticated.initialized())
        });
        if unauthenticated.len() >= MAX_UNAUTHENTICATED
            && let Some(oldest) = unauthenticated.pop_front()
            && let Some(oldest) = oldest.upgrade()
        {
            oldest.replaced.cancel();
        }
        let peer = Arc::new(Peer {
            authenticator: Arc::clone(self),
            authenticated: SetOnce::new(),
            replaced: CancellationToken::new(),
        });
        unauthenticated.push_back(Arc::downgrade(&peer));
        peer
    }
}

impl Peer {
    /// Authenticates a call by its headers.
    ///
    /// # Errors
    ///
    /// UNAUTHENTICATED without a ticket, PERMISSION_DENIED with a wrong one, and
    /// RESOURCE_EXHAUSTED if the plugin has too many connections.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
    ) -> Result<Arc<PluginConnection>, Status> {
        // The first of several tickets counts.
        let ticket = headers
            .get(admission_grpc::TICKET)
            .ok_or_else(|| Status::unauthenticated("no ticket in the request"))?;
        let ticket = hash(ticket.as_bytes());
        let invalid = || Status::permission_denied("invalid ticket in the request");
        if let Some(connection) = self.authenticated.get() {
            // The ticket may have been revoked. The calls that a plugin made before its exit
            // are still served.
            let same = connection.ticket == ticket;
            return same.then(|| Arc::clone(connection)).ok_or_else(invalid);
        }
        let session = lock(&self.authenticator.sessions).get(&ticket).cloned();
        let session = session.ok_or_else(invalid)?;
        if !session.add_connection(MAX_PLUGIN_CONNECTIONS) {
            return Err(Status::resource_exhausted(
                "too many connections with this ticket",
            ));
        }
        let connection = Arc::new(PluginConnection { ticket, session });
        // Cannot fail: the calls of a connection are authenticated one after the other.
        let _ = self.authenticated.set(Arc::clone(&connection));
        Ok(connection)
    }

    /// Waits until the connection must be closed: it was not authenticated in time, another one
    /// replaces it, or the session of its plugin has ended.
    pub(super) async fn must_close(&self) {
        tokio::select! {
            biased;
            connection = self.authenticated.wait() => connection.session.ended.cancelled().await,
            () = self.replaced.cancelled() => {}
            () = tokio::time::sleep(AUTHENTICATION_TIMEOUT) => {}
        }
    }
}

impl Drop for PluginConnection {
    fn drop(&mut self) {
        self.session.remove_connection();
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
    fn every_ticket_is_different_and_as_long_as_those_of_the_reference() {
        let (one, other) = (Ticket::generate(), Ticket::generate());
        assert_eq!(one.0.len(), 86);
        assert_ne!(one.0, other.0);
    }
}
