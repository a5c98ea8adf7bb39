//! What a plugin asks back: calls for metadata, bounded, each ending with its check.

use std::collections::{HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use admission_proto::{Code, Status};
use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use futures_util::stream::FuturesUnordered;

use super::checks::CheckId;
use super::core::Core;
use crate::repository::{ListMetadata, MetadataPage, Repository};
use crate::session::stdio::StdioSession;
use crate::session::{MetadataCall, Violation};

/// Calls of one plugin that the repository works on at once.
const MAX_RUNNING: usize = 8;

/// Unwritten replies, in bytes, above which no further call is started.
const MAX_UNWRITTEN: usize = 8 << 20;

/// Bytes of calls that may wait to be started.
const MAX_QUEUED: usize = 8 << 20;

/// The calls of one plugin that are not answered yet. Each is answered exactly once,
/// unless the plugin is ending.
#[derive(Default)]
pub(super) struct MetadataCalls {
    /// IDs of the calls that were taken and not answered.
    unanswered: HashSet<u64>,
    queue: VecDeque<Queued>,
    /// Bytes in `queue`.
    queued: usize,
    running: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Ends a running call with its check.
    handles: Vec<(CheckId, u64, AbortHandle)>,
}

struct Queued {
    call_id: u64,
    check: CheckId,
    request: ListMetadata,
    /// Bytes that it takes while it waits.
    size: usize,
}

struct Answer {
    call_id: u64,
    page: Result<MetadataPage, Status>,
}

impl MetadataCalls {
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
        session: &mut StdioSession,
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
            Err(status) => session.reply(call_id, Err(status)),
        }
        Ok(())
    }

    fn accept(&self, call: MetadataCall, core: &Core) -> Result<Queued, Status> {
        if core.services.repository.is_none() {
            return Err(Status::new(
                Code::UNIMPLEMENTED,
                "a RepositoryClient implementation is not provided",
            ));
        }
        let service_url = &core.services.service_url;
        if call.service_url != *service_url {
            let text =
                format!("can query only the CIPD repository the client is using ({service_url:?})");
            return Err(Status::new(Code::PERMISSION_DENIED, text));
        }
        let request = call.request?;
        let check = CheckId::from_wire(&call.admission_id).ok_or_else(ended)?;
        let size = size(&request);
        if self.queue.len() >= core.options.window || self.queued + size > MAX_QUEUED {
            return Err(Status::new(
                Code::RESOURCE_EXHAUSTED,
                format!("{} metadata calls are waiting already", self.queue.len()),
            ));
        }
        Ok(Queued {
            call_id: call.call_id,
            check,
            request,
            size,
        })
    }

    /// Starts what may be started, and answers what is done. Returns whether anything
    /// was answered; else the task is woken when something can be.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core,
        session: &mut StdioSession,
    ) -> bool {
        let mut answered = false;
        loop {
            while self.running.len() < MAX_RUNNING
                && session.unwritten_replies() < MAX_UNWRITTEN
                && let Some(call) = self.queue.pop_front()
            {
                self.queued -= call.size;
                if core.lock().checks.is_out(call.check) {
                    self.start(call, core);
                } else {
                    self.unanswered.remove(&call.call_id);
                    session.reply(call.call_id, Err(ended()));
                    answered = true;
                }
            }
            let Poll::Ready(Some(answer)) = self.running.poll_next_unpin(cx) else {
                return answered;
            };
            self.handles
                .retain(|&(_, call_id, _)| call_id != answer.call_id);
            self.unanswered.remove(&answer.call_id);
            session.reply(answer.call_id, answer.page);
            answered = true;
        }
    }

    /// Ends the calls of checks that are settled.
    pub(super) fn end_settled(&self, core: &Core) {
        if self.handles.is_empty() {
            return;
        }
        let shared = core.lock();
        for (check, _, handle) in &self.handles {
            if !shared.checks.is_out(*check) {
                handle.abort();
            }
        }
    }

    fn start(&mut self, call: Queued, core: &Core) {
        let Some(repository) = &core.services.repository else {
            unreachable!("without a repository no call is queued");
        };
        let repository: Arc<dyn Repository> = Arc::clone(repository);
        let (handle, registration) = AbortHandle::new_pair();
        let Queued {
            call_id,
            check,
            request,
            ..
        } = call;
        let listing = async move { repository.list_metadata(request).await };
        let listing = Abortable::new(AssertUnwindSafe(listing).catch_unwind(), registration);
        let answer = listing.map(move |outcome| Answer {
            call_id,
            page: match outcome {
                Ok(Ok(page)) => page,
                Ok(Err(_panic)) => Err(Status::new(Code::INTERNAL, "the repository panicked")),
                Err(_aborted) => Err(ended()),
            },
        });
        self.running.push(answer.boxed());
        self.handles.push((check, call_id, handle));
    }
}

fn ended() -> Status {
    Status::new(Code::CANCELLED, "the admission check has ended")
}

/// Estimates what a request takes while it waits, in bytes.
fn size(request: &ListMetadata) -> usize {
    let keys: usize = request
        .keys
        .iter()
        .map(|key| key.len() + size_of::<String>())
        .sum();
    size_of::<Queued>()
        + request.package.len()
        + request.instance.hex_digest.len()
        + request.page_token.len()
        + keys
}
