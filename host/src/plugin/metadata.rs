//! What a plugin asks back: calls for metadata, bounded, each ending with its check if it
//! names one.

mod fetches;
mod paging;
mod rests;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::task::Context;

use admission_proto::{Code, Status};

use super::checks::CheckId;
use super::core::Core;
use crate::repository::{ListMetadata, MetadataPage, Repository};
use crate::session::{MetadataCall, Replies, Violation};
use fetches::{Fetches, Waiting};
use paging::Pager;
use rests::Rests;

/// Unwritten replies, in bytes, above which no further call is started or answered
/// with a page.
const MAX_UNWRITTEN: usize = 8 << 20;

/// Bytes of calls that may wait to be started.
const MAX_QUEUED: usize = 8 << 20;

/// The calls of one plugin that are not answered yet. Each is answered exactly once,
/// unless the plugin is ending.
pub(super) struct MetadataCalls {
    /// IDs of the calls that were taken and not answered.
    unanswered: HashSet<u64>,
    queue: VecDeque<Queued>,
    /// Bytes in `queue`.
    queued: usize,
    fetches: Fetches,
    pager: Pager,
    rests: Rests,
}

struct Queued {
    call: Waiting,
    /// Who is to be asked.
    repository: Arc<dyn Repository>,
    /// What the repository is to be asked.
    request: ListMetadata,
    /// Bytes that it takes while it waits.
    size: usize,
}

impl MetadataCalls {
    pub(super) fn new() -> Self {
        Self {
            unanswered: HashSet::new(),
            queue: VecDeque::new(),
            queued: 0,
            fetches: Fetches::default(),
            pager: Pager::new(rand::random()),
            rests: Rests::default(),
        }
    }

    /// Takes a call: queues or refuses it.
    ///
    /// # Errors
    ///
    /// If a call with its ID is unanswered: which of the two an answer is for could
    /// not be told.
    pub(super) fn take(
        &mut self,
        call: MetadataCall,
        core: &Core,
        replies: &mut dyn Replies,
    ) -> Result<(), Violation> {
        let call_id = call.call_id;
        if self.unanswered.contains(&call_id) {
            let what = format!("metadata call {call_id} while another of this ID is unanswered");
            return Err(Violation::protocol(&what));
        }
        match self.accept(call, core) {
            Ok(call) => {
                self.unanswered.insert(call_id);
                self.queued += call.size;
                self.queue.push_back(call);
            }
            Err(status) => replies.reply(call_id, Err(status)),
        }
        Ok(())
    }

    fn accept(&self, call: MetadataCall, core: &Core) -> Result<Queued, Status> {
        let check = call.admission_id.as_deref().and_then(CheckId::from_wire);
        let own = check.and_then(|check| core.life.origin(check));
        let (service_url, repository) = match &own {
            Some(own) => (&own.service_url, Some(&own.repository)),
            None => (
                &core.services.service_url,
                core.services.repository.as_ref(),
            ),
        };
        let repository = repository.ok_or_else(|| {
            Status::new(
                Code::UNIMPLEMENTED,
                "a RepositoryClient implementation is not provided",
            )
        })?;
        if call.service_url != *service_url {
            let text =
                format!("can query only the CIPD repository the client is using ({service_url:?})");
            return Err(Status::new(Code::PERMISSION_DENIED, text));
        }
        let mut request = call.request?;
        request.service_url = call.service_url;
        let check = match call.admission_id {
            Some(_) => Some(check.ok_or_else(ended)?),
            None => None,
        };
        let place = self.pager.locate(&mut request)?;
        let size = size_of::<Queued>() + request.size();
        // Calls that share a fetch wait for it like those in the queue.
        let waiting = self.unanswered.len().saturating_sub(self.fetches.len());
        if waiting >= core.options.max_in_flight || self.queued + size > MAX_QUEUED {
            return Err(Status::new(
                Code::RESOURCE_EXHAUSTED,
                format!("{waiting} metadata calls are waiting already"),
            ));
        }
        Ok(Queued {
            call: Waiting {
                call_id: call.call_id,
                check,
                place,
            },
            repository: Arc::clone(repository),
            request,
            size,
        })
    }

    /// Answers what is done, and starts what may be started. Returns whether anything
    /// was done; else the task is woken when something can be.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core,
        replies: &mut dyn Replies,
    ) -> bool {
        let mut progress = false;
        loop {
            let fetched = self.fetches.poll(cx, &self.pager);
            let delivered = self.deliver(replies);
            let begun = self.begin(core, replies);
            if !(fetched || delivered || begun) {
                return progress;
            }
            progress = true;
        }
    }

    /// Ends the calls of a check that was settled.
    pub(super) fn end(&mut self, check: CheckId, replies: &mut dyn Replies) {
        for call_id in self.fetches.end(check) {
            self.answer(call_id, Err(ended()), replies);
        }
        self.rests.end(check);
    }

    /// Ends a call whose answer nobody waits for any more.
    pub(super) fn cancel(&mut self, call_id: u64) {
        // In the queue it is passed over when its turn comes.
        if self.unanswered.remove(&call_id) {
            self.fetches.cancel(call_id);
        }
    }

    /// Ends the calls of all checks that are settled.
    pub(super) fn end_settled(&mut self, core: &Core, replies: &mut dyn Replies) {
        let checks: BTreeSet<_> = self.fetches.checks().chain(self.rests.checks()).collect();
        for check in checks {
            if !core.life.is_out(check) {
                self.end(check, replies);
            }
        }
    }

    /// Answers or fetches as much of the queue as may be, in its order. Returns whether
    /// that was anything.
    fn begin(&mut self, core: &Core, replies: &mut dyn Replies) -> bool {
        let mut begun = false;
        while replies.unwritten_replies() < MAX_UNWRITTEN
            && let Some(Queued {
                call,
                repository,
                request,
                ..
            }) = self.queue.front()
        {
            if !self.unanswered.contains(&call.call_id) {
                self.take_front();
                continue;
            }
            let wanted = call.check.is_none_or(|check| core.life.is_out(check));
            let answer = if wanted {
                self.rests.page(&self.pager, request, call).map(Ok)
            } else {
                Some(Err(ended()))
            };
            if answer.is_none() && !self.fetches.takes(repository, request) {
                break;
            }
            let queued = self.take_front();
            if let Some(answer) = answer {
                self.answer(queued.call.call_id, answer, replies);
            } else {
                let Queued {
                    call,
                    repository,
                    request,
                    ..
                } = queued;
                self.fetches.fetch(repository, request, call);
            }
            begun = true;
        }
        begun
    }

    fn take_front(&mut self) -> Queued {
        let queued = self.queue.pop_front().expect("somebody has looked at it");
        self.queued -= queued.size;
        queued
    }

    /// Answers calls whose fetch is done. Returns whether there were any.
    fn deliver(&mut self, replies: &mut dyn Replies) -> bool {
        let mut delivered = false;
        while replies.unwritten_replies() < MAX_UNWRITTEN
            && let Some((call_id, page)) = self.fetches.answer(&self.pager, &mut self.rests)
        {
            self.answer(call_id, page, replies);
            delivered = true;
        }
        delivered
    }

    fn answer(
        &mut self,
        call_id: u64,
        page: Result<MetadataPage, Status>,
        replies: &mut dyn Replies,
    ) {
        self.unanswered.remove(&call_id);
        replies.reply(call_id, page);
    }
}

fn ended() -> Status {
    Status::new(Code::CANCELLED, "the admission check has ended")
}
