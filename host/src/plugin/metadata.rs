//! Metadata calls of a plugin, from the call to the reply.
//!
//! Calls wait in a queue, in order, until a fetch from the repository may start. Identical
//! concurrent calls share one fetch. A call that names a check is cancelled when the check is
//! settled.

mod kept;
mod pages;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use admission_proto::{Code, Status};
use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};

use super::check_cache::CheckId;
use super::core::Core;
use crate::repository::{ListMetadata, MetadataPage, Repository};
use crate::session::{MetadataCall, Session, SessionError};
use kept::KeptListings;
use pages::{Listing, Pager, Place};

/// Concurrent fetches of one plugin.
const MAX_FETCHES: usize = 8;

/// Bytes of unwritten replies above which no call is started and no page is sent.
const MAX_UNWRITTEN: usize = 8 << 20;

/// Bytes of calls that may wait to be started.
const MAX_QUEUED: usize = 8 << 20;

/// The unanswered metadata calls of one plugin. Each gets exactly one reply, unless the plugin
/// is closing.
pub(super) struct MetadataCalls {
    calls: HashMap<u64, Call>,
    /// The calls of every pending check that has made some.
    checks: HashMap<CheckId, HashSet<u64>>,
    /// IDs of the calls that wait to be started, and of some calls that were cancelled while
    /// they waited.
    queue: VecDeque<u64>,
    /// Bytes of the calls that wait to be started.
    queued: usize,
    fetches: HashMap<Arc<Query>, Fetch>,
    /// The futures of all fetches, including aborted ones that were not polled since.
    running: FuturesUnordered<BoxFuture<'static, Option<Fetched>>>,
    /// The completed fetches, with the calls that wait for their replies.
    completed: VecDeque<CompletedFetch>,
    pager: Pager,
    kept: KeptListings,
}

struct Call {
    /// The check that it is for, if it names one.
    check: Option<CheckId>,
    /// Where in the repository's page the requested page begins.
    place: Option<Place>,
    /// What it requests. After its start, the same allocation as that of its fetch.
    query: Arc<Query>,
    /// Its size while it waits in the queue; 0 after it was started.
    queued: usize,
}

/// A request to a repository. Calls with equal queries can share a fetch.
struct Query {
    repository: Arc<dyn Repository>,
    request: ListMetadata,
}

/// A running fetch of a query.
struct Fetch {
    /// The calls that share it.
    calls: BTreeSet<u64>,
    abort: AbortHandle,
}

type Fetched = (Arc<Query>, Result<MetadataPage, Status>);

/// A completed fetch.
struct CompletedFetch {
    query: Arc<Query>,
    listing: Result<Listing, Status>,
    /// The calls without a reply, and some that were cancelled meanwhile.
    calls: BTreeSet<u64>,
    /// For the last call that got a page: how many entries it has got so far, and its check.
    seen: Option<(usize, Option<CheckId>)>,
}

impl PartialEq for Query {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.repository, &other.repository) && self.request == other.request
    }
}

impl Eq for Query {}

impl Hash for Query {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.repository).cast::<()>().hash(state);
        self.request.hash(state);
    }
}

impl MetadataCalls {
    pub(super) fn new() -> Self {
        Self {
            calls: HashMap::new(),
            checks: HashMap::new(),
            queue: VecDeque::new(),
            queued: 0,
            fetches: HashMap::new(),
            running: FuturesUnordered::new(),
            completed: VecDeque::new(),
            pager: Pager::new(rand::random()),
            kept: KeptListings::new(),
        }
    }

    /// Queues a call, or replies to it with an error.
    ///
    /// # Errors
    ///
    /// If another call with its ID is unanswered: the plugin could not match the replies.
    pub(super) fn accept(
        &mut self,
        call: MetadataCall,
        core: &Core,
        session: &mut dyn Session,
    ) -> Result<(), SessionError> {
        let call_id = call.call_id;
        if self.calls.contains_key(&call_id) {
            let what = format!("metadata call {call_id} reuses the ID of an unanswered call");
            return Err(SessionError::protocol(&what));
        }
        match self.validate(call, core) {
            Ok(call) => {
                if let Some(check) = call.check {
                    self.checks.entry(check).or_default().insert(call_id);
                }
                self.queued += call.queued;
                self.queue.push_back(call_id);
                self.calls.insert(call_id, call);
            }
            Err(status) => session.reply(call_id, Err(status)),
        }
        Ok(())
    }

    fn validate(&mut self, call: MetadataCall, core: &Core) -> Result<Call, Status> {
        let (mut check, mut origin) = (None, None);
        if let Some(id) = &call.admission_id {
            let id = CheckId::from_wire(id).ok_or_else(check_ended_status)?;
            let registered = core.life.register_call(id).ok_or_else(check_ended_status)?;
            self.checks.entry(id).or_default();
            (check, origin) = (Some(id), registered.origin);
        }
        let settings = &core.services.settings;
        let (service_url, repository) = match &origin {
            Some(origin) => (&origin.service_url, Some(&origin.repository)),
            None => (&settings.service_url, settings.repository.as_ref()),
        };
        let Some(repository) = repository else {
            let text = "a RepositoryClient implementation is not provided";
            return Err(Status::new(Code::UNIMPLEMENTED, text));
        };
        if call.service_url != *service_url {
            let text =
                format!("can query only the CIPD repository the client is using ({service_url:?})");
            return Err(Status::new(Code::PERMISSION_DENIED, text));
        }
        let mut request = call.request?;
        request.service_url = call.service_url;
        let place = self.pager.locate(&mut request)?;
        let size = size_of::<Call>() + request.size();
        // Calls that share a fetch count like those in the queue.
        let in_progress = self.running.len() + self.completed.len();
        let waiting = self.calls.len().saturating_sub(in_progress);
        let waiting = waiting.max(self.queue.len());
        if waiting >= core.options.max_in_flight || self.queued + size > MAX_QUEUED {
            let text = format!("too many metadata calls are waiting: {waiting}");
            return Err(Status::new(Code::RESOURCE_EXHAUSTED, text));
        }
        let query = Query {
            repository: Arc::clone(repository),
            request,
        };
        Ok(Call {
            check,
            place,
            query: Arc::new(query),
            queued: size,
        })
    }

    /// Starts calls and replies to calls. Returns whether it did either; otherwise the task is
    /// woken when it can.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, session: &mut dyn Session) -> bool {
        let mut progress = false;
        loop {
            let fetched = self.poll_fetches(cx);
            let replied = self.reply_to_completed(session);
            let started = self.start_queued(session);
            if !(fetched || replied || started) {
                return progress;
            }
            progress = true;
        }
    }

    /// Starts the calls of the queue, in order, while the limits allow it. Returns whether
    /// any was started.
    fn start_queued(&mut self, session: &mut dyn Session) -> bool {
        let mut started = false;
        while session.unwritten_replies() < MAX_UNWRITTEN
            && let Some(&call_id) = self.queue.front()
        {
            // The ID of a cancelled call may name a newer call, further back in the queue.
            let call = self.calls.get_mut(&call_id).filter(|call| call.queued > 0);
            let Some(call) = call else {
                self.queue.pop_front();
                continue;
            };
            let (place, check, request) = (call.place, call.check, &call.query.request);
            let page = place.and_then(|at| self.kept.page(&self.pager, request, at, check));
            let shared = self.fetches.get_key_value(&call.query);
            let shared = shared.map(|(query, _)| Arc::clone(query));
            let in_progress = self.running.len() + self.completed.len();
            if page.is_none() && shared.is_none() && in_progress >= MAX_FETCHES {
                break;
            }
            self.queue.pop_front();
            self.queued -= std::mem::take(&mut call.queued);
            started = true;
            if let Some(page) = page {
                self.reply(call_id, Ok(page), session);
                continue;
            }
            if let Some(query) = shared {
                call.query = query;
            }
            let query = Arc::clone(&call.query);
            let fetch = self.fetches.entry(Arc::clone(&query));
            let fetch = fetch.or_insert_with(|| {
                let (abort, running) = start_fetch(query);
                self.running.push(running);
                let calls = BTreeSet::new();
                Fetch { calls, abort }
            });
            fetch.calls.insert(call_id);
        }
        started
    }

    /// Collects completed fetches. Returns whether there were any.
    fn poll_fetches(&mut self, cx: &mut Context<'_>) -> bool {
        let mut ended = false;
        while let Poll::Ready(Some(fetched)) = self.running.poll_next_unpin(cx) {
            ended = true;
            let Some((query, page)) = fetched else {
                continue;
            };
            if let Some(fetch) = self.fetches.remove(&query) {
                let request = query.request.clone();
                self.completed.push_back(CompletedFetch {
                    listing: page.and_then(|page| self.pager.open(request, page)),
                    query,
                    calls: fetch.calls,
                    seen: None,
                });
            }
        }
        ended
    }

    /// Replies to the calls of completed fetches, and caches the entries that the plugin has not
    /// got. Returns whether there were any.
    fn reply_to_completed(&mut self, session: &mut dyn Session) -> bool {
        let mut replied = false;
        while session.unwritten_replies() < MAX_UNWRITTEN
            && let Some(completed) = self.completed.front_mut()
        {
            replied = true;
            let Some(call_id) = completed.calls.pop_first() else {
                let completed = self.completed.pop_front();
                if let Some((Ok(listing), Some((seen, check)))) =
                    completed.map(|completed| (completed.listing, completed.seen))
                    && check.is_none_or(|check| self.checks.contains_key(&check))
                {
                    self.kept.keep(listing, seen, check);
                }
                continue;
            };
            let call = self.calls.get(&call_id);
            let is_same_query = |call: &&Call| Arc::ptr_eq(&call.query, &completed.query);
            let Some(call) = call.filter(is_same_query) else {
                continue;
            };
            let page = match &completed.listing {
                Ok(listing) => self.pager.page(listing, call.place),
                Err(status) => Err(status.clone()),
            };
            if let Ok((_, seen)) = page {
                completed.seen = Some((seen, call.check));
            }
            self.reply(call_id, page.map(|(page, _)| page), session);
        }
        replied
    }

    /// Cancels the calls of the checks that were settled since the last call of this method.
    /// Returns whether there were any.
    pub(super) fn end_with_checks(&mut self, core: &Core, session: &mut dyn Session) -> bool {
        if self.checks.is_empty() {
            return false;
        }
        let mut cancelled = false;
        for check in core.life.take_ended_callers() {
            for call_id in self.checks.remove(&check).unwrap_or_default() {
                cancelled = true;
                self.reply(call_id, Err(check_ended_status()), session);
            }
            self.kept.end(check);
        }
        cancelled
    }

    fn reply(
        &mut self,
        call_id: u64,
        page: Result<MetadataPage, Status>,
        session: &mut dyn Session,
    ) {
        self.end(call_id);
        session.reply(call_id, page);
    }

    /// Removes a call, and aborts its fetch if no other call waits for it.
    pub(super) fn end(&mut self, call_id: u64) {
        let Some(call) = self.calls.remove(&call_id) else {
            return;
        };
        self.queued -= call.queued;
        if let Some(calls) = call.check.and_then(|check| self.checks.get_mut(&check)) {
            calls.remove(&call_id);
        }
        // There may be a fetch of an equal query that the call does not wait for.
        if let Some(fetch) = self.fetches.get_mut(&call.query)
            && fetch.calls.remove(&call_id)
            && fetch.calls.is_empty()
        {
            fetch.abort.abort();
            self.fetches.remove(&call.query);
        }
    }
}

/// Returns a fetch and the handle that aborts it. An aborted fetch returns `None`.
fn start_fetch(query: Arc<Query>) -> (AbortHandle, BoxFuture<'static, Option<Fetched>>) {
    let (abort, registration) = AbortHandle::new_pair();
    let fetched_query = Arc::clone(&query);
    let listing = async move {
        let Query {
            repository,
            request,
        } = &*fetched_query;
        repository.list_metadata(request.clone()).await
    };
    let listing = AssertUnwindSafe(listing).catch_unwind();
    let fetch = Abortable::new(listing, registration).map(|page| {
        let page = page
            .ok()?
            .unwrap_or_else(|_panic| Err(Status::new(Code::INTERNAL, "the repository panicked")));
        Some((query, page))
    });
    (abort, fetch.boxed())
}

fn check_ended_status() -> Status {
    Status::new(Code::CANCELLED, "the admission check has ended")
}

#[cfg(test)]
mod tests;
