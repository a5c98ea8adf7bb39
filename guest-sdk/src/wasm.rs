//! The run loop of a component: one thread that reads, judges and writes in turn.

mod stdio;

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};

use self::stdio::{Input, Progress};
use crate::conversation::Conversation;
use crate::inbox::Inbox;
use crate::{Handler, RunError, at_hand, verdict};

pub(crate) fn run(version: &str, handler: impl Handler) -> Result<(), RunError> {
    let conversation = Conversation::begin(version)?;
    stdio::open_output();
    answer_panics(Arc::clone(&conversation));

    let outcome = converse(&conversation, Arc::new(handler));

    conversation.end();
    conversation.outbox().close();
    if outcome.is_ok() {
        // A host that asked us to finish need not take what is left.
        let _ = stdio::write_all(&conversation);
    }
    outcome
}

/// Runs until stdin ends. Never waits for one stream while it could serve the other: a
/// host may be unable to take our frames before we take its own.
fn converse(conversation: &Arc<Conversation>, handler: Arc<impl Handler>) -> Result<(), RunError> {
    let input = Input::open();
    let mut inbox = Inbox::default();
    let mut waiting = FuturesUnordered::new();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    loop {
        woken.0.store(false, Ordering::Relaxed);
        let mut cx = Context::from_waker(&waker);
        while let Poll::Ready(Some(())) = waiting.poll_next_unpin(&mut cx) {}
        let progress = stdio::write(conversation)?;
        let bytes = match progress {
            // A check has more to do at once: the set of them yields now and then.
            _ if woken.0.load(Ordering::Relaxed) => input.read(),
            Progress::Done => input.read_some(),
            Progress::Blocked => {
                stdio::wait_for_either(&input);
                input.read()
            }
        };
        let Some(bytes) = bytes.map_err(RunError::Read)? else {
            return inbox.finish();
        };
        inbox.extend(&bytes);
        while let Some(heard) = inbox.next()? {
            let Some(check) = conversation.hear(heard) else {
                continue;
            };
            let judging = Arc::clone(conversation).judge(Arc::clone(&handler), check);
            let mut judging = Box::pin(judging);
            // Most handlers are done at once, and then cost no place in the set.
            let mut cx = Context::from_waker(Waker::noop());
            if judging.poll_unpin(&mut cx).is_pending() {
                waiting.push(judging);
            }
        }
    }
}

/// Has a panic answer for the check at hand, since the instance traps right after it.
fn answer_panics(conversation: Arc<Conversation>) {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if let Some(check) = at_hand::get() {
            conversation.decide(&check, Err(verdict::panicked(panic.payload())));
            stdio::write_before_trap(&conversation);
        }
        report(panic);
    }));
}

/// Writes what is queued if there is no room for another log line.
pub(crate) fn wait_for_room(conversation: &Conversation) {
    let mut cx = Context::from_waker(Waker::noop());
    if conversation.outbox().poll_room(&mut cx).is_pending() {
        // The loop meets the same error and ends with it.
        let _ = stdio::write_all(conversation);
    }
}

/// Whether a check can go on.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
