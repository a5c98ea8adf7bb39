//! Metadata calls of a plugin, from the call to the reply.
//!
//! A call waits in a queue, in order, until the repository may be asked. Calls that ask the
//! same at the same time share one fetch. A call that names a check ends with it.

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

/// Fetches of one plugin at once.
const MAX_FETCHES: usize = 8;

/// Bytes of unwritten replies above which no call is started or answered with a page.
const MAX_UNWRITTEN: usize = 8 << 20;

/// Bytes of calls that may wait to be started.
const MAX_QUEUED: usize = 8 << 20;

/// The unanswered metadata calls of one plugin. Each is answered exactly once, unless the
/// plugin is closing.
pub(super) struct MetadataCalls {
    calls: HashMap<u64, Call>,
    checks: HashMap<CheckId, OfCheck>,
    /// IDs of the calls that wait to be started, and of some that have ended since.
    queue: VecDeque<u64>,
    /// Bytes of the calls that wait to be started.
    queued: usize,
    fetches: HashMap<Arc<Question>, Fetch>,
    /// The fetches, with those that were aborted and not polled since.
    running: FuturesUnordered<BoxFuture<'static, Option<Fetched>>>,
    /// The fetches that have ended, with the calls that they answer.
    arrived: VecDeque<Arrived>,
    pager: Pager,
    kept: KeptListings,
}

struct Call {
    /// The check that it is for, if it names one.
    check: Option<CheckId>,
    /// Where in the repository's page its own begins.
    place: Option<Place>,
    /// The question of its fetch, after it was started.
    question: Arc<Question>,
    /// Its size while it waits in the queue; 0 after it was started.
    queued: usize,
}

/// What ends with a check.
#[derive(Default)]
struct OfCheck {
    calls: HashSet<u64>,
    /// Versions of the kept listings.
    listings: HashSet<u64>,
}

/// What the repository is asked.
struct Question {
    repository: Arc<dyn Repository>,
    request: ListMetadata,
}

/// A question that the repository is being asked.
struct Fetch {
    /// The calls that share it.
    calls: BTreeSet<u64>,
    abort: AbortHandle,
}

type Fetched = (Arc<Question>, Result<MetadataPage, Status>);

/// What the repository answered.
struct Arrived {
    question: Arc<Question>,
    listing: Result<Listing, Status>,
    /// The calls that are not answered yet, and some that have ended since.
    calls: BTreeSet<u64>,
    /// For the last call that got a page: how many entries it has seen, and its check.
    seen: Option<(usize, Option<CheckId>)>,
}

impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.repository, &other.repository) && self.request == other.request
    }
}

impl Eq for Question {}

impl Hash for Question {
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
            arrived: VecDeque::new(),
            pager: Pager::new(rand::random()),
            kept: KeptListings::new(),
        }
    }

    /// Queues a call, or answers it with an error.
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
            let what = format!("metadata call {call_id} while another of this ID is unanswered");
            return Err(SessionError::protocol(&what));
        }
        match self.validate(call, core) {
            Ok(call) => {
                if let Some(check) = call.check {
                    self.checks.entry(check).or_default().calls.insert(call_id);
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
            let id = CheckId::from_wire(id).ok_or_else(check_ended)?;
            let question = core.life.register_call(id).ok_or_else(check_ended)?;
            self.checks.entry(id).or_default();
            (check, origin) = (Some(id), question.origin);
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
        let at_work = self.running.len() + self.arrived.len();
        let waiting = self.calls.len().saturating_sub(at_work);
        let waiting = waiting.max(self.queue.len());
        if waiting >= core.options.max_in_flight || self.queued + size > MAX_QUEUED {
            let text = format!("{waiting} metadata calls are waiting already");
            return Err(Status::new(Code::RESOURCE_EXHAUSTED, text));
        }
        let question = Question {
            repository: Arc::clone(repository),
            request,
        };
        Ok(Call {
            check,
            place,
            question: Arc::new(question),
            queued: size,
        })
    }

    /// Starts and answers calls. Returns whether any were; otherwise the task is woken when
    /// some can be.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, session: &mut dyn Session) -> bool {
        let mut progress = false;
        loop {
            let fetched = self.poll_fetches(cx);
            let answered = self.answer_arrived(session);
            let started = self.start_queued(session);
            if !(fetched || answered || started) {
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
            // An ID whose call has ended may name a newer call, further back in the queue.
            let call = self.calls.get_mut(&call_id).filter(|call| call.queued > 0);
            let Some(call) = call else {
                self.queue.pop_front();
                continue;
            };
            let (place, check, request) = (call.place, call.check, &call.question.request);
            let page = place.and_then(|at| self.kept.page(&self.pager, request, at, check));
            let shared = self.fetches.get_key_value(&call.question);
            let shared = shared.map(|(question, _)| Arc::clone(question));
            let at_work = self.running.len() + self.arrived.len();
            if page.is_none() && shared.is_none() && at_work >= MAX_FETCHES {
                break;
            }
            self.queue.pop_front();
            self.queued -= std::mem::take(&mut call.queued);
            started = true;
            if let (Some(page), Some(place)) = (page, place) {
                self.note_listing(place.version, check);
                self.answer(call_id, Ok(page), session);
                continue;
            }
            if let Some(question) = shared {
                call.question = question;
            }
            let question = Arc::clone(&call.question);
            let fetch = self.fetches.entry(Arc::clone(&question));
            let fetch = fetch.or_insert_with(|| {
                let (abort, running) = start_fetch(question);
                self.running.push(running);
                let calls = BTreeSet::new();
                Fetch { calls, abort }
            });
            fetch.calls.insert(call_id);
        }
        started
    }

    /// Returns whether a fetch has ended.
    fn poll_fetches(&mut self, cx: &mut Context<'_>) -> bool {
        let mut ended = false;
        while let Poll::Ready(Some(fetched)) = self.running.poll_next_unpin(cx) {
            ended = true;
            let Some((question, page)) = fetched else {
                continue;
            };
            if let Some(fetch) = self.fetches.remove(&question) {
                let request = question.request.clone();
                self.arrived.push_back(Arrived {
                    listing: page.and_then(|page| self.pager.open(request, page)),
                    question,
                    calls: fetch.calls,
                    seen: None,
                });
            }
        }
        ended
    }

    /// Answers the calls of fetches that have ended, and keeps what they have not seen.
    /// Returns whether there were any.
    fn answer_arrived(&mut self, session: &mut dyn Session) -> bool {
        let mut answered = false;
        while session.unwritten_replies() < MAX_UNWRITTEN
            && let Some(arrived) = self.arrived.front_mut()
        {
            answered = true;
            let Some(call_id) = arrived.calls.pop_first() else {
                let arrived = self.arrived.pop_front();
                if let Some((Ok(listing), Some((seen, check)))) =
                    arrived.map(|arrived| (arrived.listing, arrived.seen))
                {
                    self.note_listing(listing.version(), check);
                    self.kept.keep(listing, seen, check);
                }
                continue;
            };
            let call = self.calls.get(&call_id);
            let its_own = |call: &&Call| Arc::ptr_eq(&call.question, &arrived.question);
            let Some(call) = call.filter(its_own) else {
                continue;
            };
            let page = match &arrived.listing {
                Ok(listing) => self.pager.page(listing, call.place),
                Err(status) => Err(status.clone()),
            };
            if let Ok((_, seen)) = page {
                arrived.seen = Some((seen, call.check));
            }
            self.answer(call_id, page.map(|(page, _)| page), session);
        }
        answered
    }

    /// Notes that a kept listing is dropped with `check`, which has used it last.
    fn note_listing(&mut self, version: u64, check: Option<CheckId>) {
        if let Some(of_check) = check.and_then(|check| self.checks.get_mut(&check)) {
            of_check.listings.insert(version);
        }
    }

    /// Ends the calls of the checks that were settled since the last time.
    pub(super) fn end_with_checks(&mut self, core: &Core, session: &mut dyn Session) {
        if self.checks.is_empty() {
            return;
        }
        for check in core.life.take_ended_callers() {
            let OfCheck { calls, listings } = self.checks.remove(&check).unwrap_or_default();
            for call_id in calls {
                self.end(call_id);
                session.reply(call_id, Err(check_ended()));
            }
            for version in listings {
                self.kept.end(version, check);
            }
        }
    }

    fn answer(
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
        if let Some(of_check) = call.check.and_then(|check| self.checks.get_mut(&check)) {
            of_check.calls.remove(&call_id);
        }
        // Another fetch may ask the same, of which the call is not a part.
        if let Some(fetch) = self.fetches.get_mut(&call.question)
            && fetch.calls.remove(&call_id)
            && fetch.calls.is_empty()
        {
            fetch.abort.abort();
            self.fetches.remove(&call.question);
        }
    }
}

/// Returns a fetch and what aborts it. An aborted fetch returns `None`.
fn start_fetch(question: Arc<Question>) -> (AbortHandle, BoxFuture<'static, Option<Fetched>>) {
    let (abort, registration) = AbortHandle::new_pair();
    let asked = Arc::clone(&question);
    let listing = async move {
        let Question {
            repository,
            request,
        } = &*asked;
        repository.list_metadata(request.clone()).await
    };
    let listing = AssertUnwindSafe(listing).catch_unwind();
    let fetch = Abortable::new(listing, registration).map(|page| {
        let page = page
            .ok()?
            .unwrap_or_else(|_panic| Err(Status::new(Code::INTERNAL, "the repository panicked")));
        Some((question, page))
    });
    (abort, fetch.boxed())
}

fn check_ended() -> Status {
    Status::new(Code::CANCELLED, "the admission check has ended")
}

#[cfg(test)]
mod tests;
