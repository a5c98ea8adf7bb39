//! Whoever is at the other end of a connection: nobody knows, until a ticket is shown.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::server::Lines;
use super::services::Desk;
use super::tickets::TicketHash;

/// How long a connection may be there without a ticket. A plugin shows one with the first
/// thing that it says, but may be slow to say it.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// The other end of one connection.
pub(super) struct Visitor {
    lines: Arc<Lines>,
    plugin: SetOnce<Known>,
    /// Set when others need the place.
    unwanted: CancellationToken,
}

struct Known {
    ticket: TicketHash,
    desk: Arc<Desk>,
}

impl Visitor {
    pub(super) fn new(lines: Arc<Lines>) -> Self {
        Self {
            lines,
            plugin: SetOnce::new(),
            unwanted: CancellationToken::new(),
        }
    }

    /// Returns what serves the plugin with this ticket. The first one counts for as long
    /// as the connection lasts, also after it was revoked: what a plugin said before its
    /// exit is heard.
    pub(super) fn introduce(&self, ticket: TicketHash) -> Result<Arc<Desk>, Status> {
        let invalid = || Status::permission_denied("invalid ticket in the request");
        if let Some(known) = self.plugin.get() {
            let same = known.ticket == ticket;
            return same.then(|| Arc::clone(&known.desk)).ok_or_else(invalid);
        }
        let line = self.lines.find(ticket).ok_or_else(invalid)?;
        let too_many = || Status::resource_exhausted("too many connections with this ticket");
        let desk = Arc::new(Desk(line.connect().ok_or_else(too_many)?));
        let known = Known {
            ticket,
            desk: Arc::clone(&desk),
        };
        // Calls of a connection are looked at one after the other.
        let _first = self.plugin.set(known);
        Ok(desk)
    }

    /// Tells whether no ticket was shown yet.
    pub(super) fn is_stranger(&self) -> bool {
        !self.plugin.initialized()
    }

    /// Makes room for others.
    pub(super) fn dismiss(&self) {
        self.unwanted.cancel();
    }

    /// Waits until the connection is to be cut: no ticket was shown in time, others need
    /// the place, or the plugin is gone.
    pub(super) async fn dismissed(&self) {
        tokio::select! {
            biased;
            plugin = self.plugin.wait() => plugin.desk.0.gone().await,
            () = self.unwanted.cancelled() => {}
            () = tokio::time::sleep(INTRODUCTION) => {}
        }
    }
}
