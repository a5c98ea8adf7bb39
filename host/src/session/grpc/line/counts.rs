//! What is counted of a plugin while it is there: connections, and bytes either way.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Line;

/// Connections that one plugin may have. One is what it needs.
const MAX_CONNECTIONS: usize = 64;

/// Bytes of messages that may be on their way to us at once.
const MAX_INCOMING: usize = 64 << 20;

/// A connection of the plugin. Dropping it tells that there is one fewer.
pub(in crate::session::grpc) struct Connected(Arc<Line>);

/// Room for a message that is read. Dropping it gives the room back.
pub(in crate::session::grpc) struct Claim {
    line: Arc<Line>,
    bytes: usize,
}

/// Counts an answer as not written until it is dropped.
pub(in crate::session::grpc) struct Unwritten {
    line: Arc<Line>,
    bytes: usize,
}

impl Line {
    /// Counts one more connection, unless there are too many.
    pub(in crate::session::grpc) fn connect(self: &Arc<Self>) -> Option<Connected> {
        let more = |connections| (connections < MAX_CONNECTIONS).then_some(connections + 1);
        let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
        let counted = self.connections.fetch_update(set, fetch, more);
        counted.is_ok().then(|| Connected(Arc::clone(self)))
    }

    /// Makes room for a message that is to be read, if there is some.
    pub(in crate::session::grpc) fn claim(self: &Arc<Self>, bytes: usize) -> Option<Claim> {
        let before = self.incoming.fetch_add(bytes, Ordering::AcqRel);
        let claim = Claim {
            line: Arc::clone(self),
            bytes,
        };
        (before + bytes <= MAX_INCOMING).then_some(claim)
    }
}

impl Unwritten {
    /// Counts `bytes` more.
    pub(super) fn new(line: &Arc<Line>, bytes: usize) -> Self {
        line.unwritten.fetch_add(bytes, Ordering::AcqRel);
        Self {
            line: Arc::clone(line),
            bytes,
        }
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        self.line.unwritten.fetch_sub(self.bytes, Ordering::AcqRel);
        self.line.session.wake();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.line.incoming.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Deref for Connected {
    type Target = Arc<Line>;

    fn deref(&self) -> &Arc<Line> {
        &self.0
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
        self.0.session.wake();
    }
}
