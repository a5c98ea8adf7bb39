//! Calls to the repository, each for one or more calls of the plugin.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use admission_proto::{Code, Status};
use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use futures_util::stream::FuturesUnordered;

use super::paging::{Listing, Pager, Place};
use super::rests::Rests;
use crate::plugin::checks::CheckId;
use crate::repository::{ListMetadata, MetadataPage, Repository};

/// Fetches of one plugin that are under way at once.
const MAX_FETCHES: usize = 8;

/// The fetches of one plugin, of which no two ask the same at the same time.
#[derive(Default)]
pub(super) struct Fetches {
    running: FuturesUnordered<BoxFuture<'static, Arrival>>,
    /// Each has at least one call that waits for it.
    fetches: Vec<Fetch>,
    /// Number of the next fetch.
    next: u64,
}

/// A call of the plugin that waits for a page.
pub(super) struct Waiting {
    pub(super) call_id: u64,
    /// The check that it is for, if it named one.
    pub(super) check: Option<CheckId>,
    /// Where in the repository's page its own begins.
    pub(super) place: Option<Place>,
}

struct Fetch {
    number: u64,
    /// Who is asked.
    repository: Arc<dyn Repository>,
    request: ListMetadata,
    waiting: VecDeque<Waiting>,
    /// Ends it with the last of the checks that wait for it.
    handle: AbortHandle,
    /// What the repository said, once it has.
    outcome: Option<Result<Listing, Status>>,
}

struct Arrival {
    number: u64,
    /// `None` if the fetch was ended.
    page: Option<Result<MetadataPage, Status>>,
}

impl Fetches {
    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.fetches.len()
    }

    /// Tells whether a call that asks this can be taken: there is room, or the
    /// repository is being asked the same already.
    pub(super) fn takes(&self, repository: &Arc<dyn Repository>, request: &ListMetadata) -> bool {
        // Not the same number: what was ended runs until it is polled, what is done waits
        // until it is read.
        let has_room = self.fetches.len() < MAX_FETCHES && self.running.len() < MAX_FETCHES;
        has_room
            || self
                .fetches
                .iter()
                .any(|fetch| fetch.asks(repository, request))
    }

    /// Fetches a page for a call, together with the calls that asked the same before.
    pub(super) fn fetch(
        &mut self,
        repository: Arc<dyn Repository>,
        request: ListMetadata,
        call: Waiting,
    ) {
        let mut fetches = self.fetches.iter_mut();
        if let Some(fetch) = fetches.find(|fetch| fetch.asks(&repository, &request)) {
            fetch.waiting.push_back(call);
            return;
        }
        let number = self.next;
        self.next += 1;
        let (handle, registration) = AbortHandle::new_pair();
        self.fetches.push(Fetch {
            number,
            repository: Arc::clone(&repository),
            request: request.clone(),
            waiting: VecDeque::from([call]),
            handle,
            outcome: None,
        });
        let listing = async move { repository.list_metadata(request).await };
        let listing = Abortable::new(AssertUnwindSafe(listing).catch_unwind(), registration);
        let arrival = listing.map(move |outcome| Arrival {
            number,
            page: outcome
                .ok()
                .map(|page| page.unwrap_or_else(|_panic| Err(panicked()))),
        });
        self.running.push(arrival.boxed());
    }

    /// Takes in what the repository has said. Returns whether anything has ended; else
    /// the task is woken when something does.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, pager: &Pager) -> bool {
        let mut ended = false;
        while let Poll::Ready(Some(arrival)) = self.running.poll_next_unpin(cx) {
            ended = true;
            let its = |fetch: &&mut Fetch| fetch.number == arrival.number;
            if let Some(page) = arrival.page
                && let Some(fetch) = self.fetches.iter_mut().find(its)
            {
                let request = fetch.request.clone();
                fetch.outcome = Some(page.and_then(|page| pager.open(request, page)));
            }
        }
        ended
    }

    /// Answers the next call whose fetch is done. When it was the last one, what is left
    /// of the repository's page goes to `rests`.
    pub(super) fn answer(
        &mut self,
        pager: &Pager,
        rests: &mut Rests,
    ) -> Option<(u64, Result<MetadataPage, Status>)> {
        let done = |fetch: &Fetch| fetch.outcome.is_some();
        let at = self.fetches.iter().position(done)?;
        let fetch = &mut self.fetches[at];
        let call = fetch.waiting.pop_front()?;
        let answer = match fetch.outcome.as_ref()? {
            Ok(listing) => pager.page(listing, call.place),
            Err(status) => Err(status.clone()),
        };
        if fetch.waiting.is_empty() {
            let outcome = self.fetches.remove(at).outcome;
            if let (Some(Ok(listing)), Ok((_, seen))) = (outcome, &answer) {
                rests.keep(listing, *seen, call.check);
            }
        }
        Some((call.call_id, answer.map(|(page, _)| page)))
    }

    /// Takes out the calls of a check that was settled, and ends each fetch for which
    /// no other waits. Returns the calls' IDs.
    pub(super) fn end(&mut self, check: CheckId) -> Vec<u64> {
        let mut calls = Vec::new();
        self.let_go(|call| {
            let ended = call.check == Some(check);
            calls.extend(ended.then_some(call.call_id));
            ended
        });
        calls
    }

    /// Takes out one call, and ends its fetch if no other waits for it.
    pub(super) fn cancel(&mut self, call_id: u64) {
        self.let_go(|call| call.call_id == call_id);
    }

    /// Takes out calls, and ends each fetch for which none is left.
    fn let_go(&mut self, mut ended: impl FnMut(&Waiting) -> bool) {
        self.fetches.retain_mut(|fetch| {
            fetch.waiting.retain(|call| !ended(call));
            let wanted = !fetch.waiting.is_empty();
            if !wanted {
                fetch.handle.abort();
            }
            wanted
        });
    }

    /// Returns the checks that wait.
    pub(super) fn checks(&self) -> impl Iterator<Item = CheckId> {
        let calls = self.fetches.iter().flat_map(|fetch| &fetch.waiting);
        calls.filter_map(|call| call.check)
    }
}

impl Fetch {
    /// Tells whether it is on its way to this repository with this question.
    fn asks(&self, repository: &Arc<dyn Repository>, request: &ListMetadata) -> bool {
        self.outcome.is_none()
            && Arc::ptr_eq(&self.repository, repository)
            && self.request == *request
    }
}

fn panicked() -> Status {
    Status::new(Code::INTERNAL, "the repository panicked")
}
