//! Metadata calls in flight; performs no I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use admission_proto::wire::plugin::ListMetadataResponse;
use admission_proto::{Code, Status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::check::Check;

/// Most calls in flight. The host fetches no more pages of one plugin at a time either.
const MAX_IN_FLIGHT: usize = 8;

/// The result of a metadata call.
pub(crate) type Reply = Result<ListMetadataResponse, Status>;

/// The metadata calls of a session.
#[derive(Debug)]
pub(crate) struct MetadataCalls {
    slots: Arc<Semaphore>,
    in_flight: Mutex<InFlight>,
}

#[derive(Debug, Default)]
struct InFlight {
    last_id: u64,
    /// Has at most [`MAX_IN_FLIGHT`] calls, so a linear search is faster than a map.
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    id: u64,
    check: Arc<Check>,
    caller: oneshot::Sender<Reply>,
    /// Held until the host has replied, even if the caller has stopped waiting.
    _slot: OwnedSemaphorePermit,
}

impl MetadataCalls {
    pub(crate) fn new() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            in_flight: Mutex::default(),
        }
    }

    /// Waits for a slot, sends the call with its ID, and waits for the reply.
    pub(crate) async fn call(&self, check: &Arc<Check>, send: impl FnOnce(u64)) -> Reply {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_| terminating())?;
        let (caller, reply) = oneshot::channel();
        let id = {
            let mut in_flight = self.lock();
            if check.is_settled() {
                return Err(cancelled("the check is already settled"));
            }
            if self.slots.is_closed() {
                return Err(terminating());
            }
            in_flight.last_id += 1;
            let id = in_flight.last_id;
            in_flight.calls.push(Call {
                id,
                check: Arc::clone(check),
                caller,
                _slot: slot,
            });
            id
        };
        send(id);
        // The sender is dropped when the check is settled or the session ends.
        reply
            .await
            .unwrap_or_else(|_| Err(cancelled("the metadata call was abandoned")))
    }

    /// Passes a reply to the caller. A reply to a call that is not in flight is dropped: its
    /// check was settled in the meantime.
    pub(crate) fn complete(&self, id: u64, reply: Reply) {
        let call = {
            let mut in_flight = self.lock();
            let position = in_flight.calls.iter().position(|call| call.id == id);
            position.map(|at| in_flight.calls.swap_remove(at))
        };
        if let Some(call) = call {
            // A caller that stopped waiting needs no reply.
            let _ = call.caller.send(reply);
        }
    }

    /// Marks `check` as settled and ends its calls, as the host does when it gets the verdict.
    /// Returns whether the check was pending.
    pub(crate) fn settle(&self, check: &Arc<Check>) -> bool {
        let mut in_flight = self.lock();
        let was_pending = check.mark_settled();
        in_flight
            .calls
            .retain(|call| !Arc::ptr_eq(&call.check, check));
        was_pending
    }

    /// Cancels all calls in flight, and makes later calls fail.
    pub(crate) fn cancel_all(&self) {
        // The order matters: a call that got its slot before the semaphore was closed checks
        // under the lock whether it is closed.
        self.slots.close();
        self.lock().calls.clear();
    }

    fn lock(&self) -> MutexGuard<'_, InFlight> {
        // No code panics while it holds the lock.
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn terminating() -> Status {
    cancelled("the plugin is terminating")
}

fn cancelled(why: &str) -> Status {
    Status::new(Code::CANCELLED, why)
}
