//! Metadata calls that the host has not answered; performs no I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use admission_proto::wire::plugin::ListMetadataResponse;
use admission_proto::wire::stdio::{ListMetadataReply, list_metadata_reply};
use admission_proto::{Code, Status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::conversation::Check;

/// Calls that may be out at once; the host fetches no more than this either.
const WINDOW: usize = 8;

/// A page, or why there is none.
pub(crate) type Reply = Result<ListMetadataResponse, Status>;

/// The calls that are out, and the places for them.
#[derive(Debug)]
pub(crate) struct Calls {
    window: Arc<Semaphore>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    /// At most [`WINDOW`], so a search beats a map.
    out: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    id: u64,
    check: Arc<Check>,
    caller: oneshot::Sender<Reply>,
    /// Kept until the host is done with the call, even when its caller is gone.
    _place: OwnedSemaphorePermit,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self {
            window: Arc::new(Semaphore::new(WINDOW)),
            table: Mutex::default(),
        }
    }

    /// Waits for a place, sends the call with its ID, and waits for the reply.
    pub(crate) async fn call(&self, check: &Arc<Check>, send: impl FnOnce(u64)) -> Reply {
        let place = Arc::clone(&self.window).acquire_owned().await;
        let place = place.map_err(|_| terminating())?;
        let (caller, reply) = oneshot::channel();
        let id = {
            let mut table = self.lock();
            if check.is_decided() {
                return Err(cancelled("the check is already decided"));
            }
            if self.window.is_closed() {
                return Err(terminating());
            }
            table.last_id += 1;
            let id = table.last_id;
            table.out.push(Call {
                id,
                check: Arc::clone(check),
                caller,
                _place: place,
            });
            id
        };
        send(id);
        // Nobody answers once the check is decided or the conversation over.
        reply
            .await
            .unwrap_or_else(|_| Err(cancelled("the metadata call was abandoned")))
    }

    /// Hands a reply to its caller. One to a call that ended is dropped: its check was
    /// decided meanwhile.
    pub(crate) fn answer(&self, reply: ListMetadataReply) {
        let call = {
            let mut table = self.lock();
            let position = table.out.iter().position(|call| call.id == reply.call_id);
            position.map(|at| table.out.swap_remove(at))
        };
        if let Some(call) = call {
            // A caller that stopped waiting needs no answer.
            let _ = call.caller.send(read(reply));
        }
    }

    /// Ends the calls of a check, as the host does when it hears the verdict.
    pub(crate) fn decide(&self, check: &Arc<Check>) {
        let mut table = self.lock();
        check.mark_decided();
        table.out.retain(|call| !Arc::ptr_eq(&call.check, check));
    }

    /// Ends all calls and lets nobody make another.
    pub(crate) fn end(&self) {
        // In this order: a call that found a place before looks again under the lock.
        self.window.close();
        self.lock().out.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(reply: ListMetadataReply) -> Reply {
    match reply.result {
        Some(list_metadata_reply::Result::Page(page)) => Ok(page),
        Some(list_metadata_reply::Result::Status(status)) if status.code != 0 => Err(status.into()),
        _ => Err(Status::new(
            Code::INTERNAL,
            "the host answered a metadata call with neither a page nor an error",
        )),
    }
}

fn terminating() -> Status {
    cancelled("the plugin is terminating")
}

fn cancelled(why: &str) -> Status {
    Status::new(Code::CANCELLED, why)
}
