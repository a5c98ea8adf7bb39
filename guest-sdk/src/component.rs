//! The run loop of a component: one thread that reads, judges and writes in turn.

mod stdio;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};

use self::stdio::{Input, Progress};
use crate::handler::judge;
use crate::inbound::FrameReader;
use crate::session::Session;
use crate::{Handler, RunError, panic};

/// Runs the session until stdin ends.
pub(crate) fn run(session: Arc<Session>, handler: impl Handler) -> Result<(), RunError> {
    stdio::open_output();
    panic::install_hook(Arc::clone(&session), stdio::write_before_trap);

    let outcome = run_loop(&session, &Arc::new(handler));

    session.end();
    session.outbox.close();
    if outcome.is_ok() {
        // Not an error if it fails: the host has closed the plugin and need not read.
        let _ = stdio::write_all(&session);
    }
    outcome
}

/// Does not block on one stream while the other is ready. Otherwise a host that writes before
/// it reads could deadlock with the component.
fn run_loop(session: &Arc<Session>, handler: &Arc<impl Handler>) -> Result<(), RunError> {
    let input = Input::open();
    let mut frames = FrameReader::default();
    let mut waiting = FuturesUnordered::new();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    loop {
        woken.0.store(false, Ordering::Relaxed);
        let mut cx = Context::from_waker(&waker);
        while let Poll::Ready(Some(())) = waiting.poll_next_unpin(&mut cx) {}
        let progress = stdio::write(session)?;
        let bytes = match progress {
            // A check is ready to be polled: `FuturesUnordered` may yield before it polls all.
            _ if woken.0.load(Ordering::Relaxed) => input.read(),
            Progress::Done => input.blocking_read(),
            Progress::Blocked => {
                stdio::wait_for_either(&input);
                input.read()
            }
        };
        let Some(bytes) = bytes.map_err(RunError::Read)? else {
            return frames.finish();
        };
        frames.push(&bytes);
        while let Some(inbound) = frames.next()? {
            let Some(check) = session.receive(inbound) else {
                continue;
            };
            let mut judging = Box::pin(judge(Arc::clone(session), Arc::clone(handler), check));
            // Most handlers never wait, so most checks never enter the set.
            let mut cx = Context::from_waker(Waker::noop());
            if judging.poll_unpin(&mut cx).is_pending() {
                waiting.push(judging);
            }
        }
    }
}

/// Writes the queued frames if the outbox is full, to make room for another log line.
pub(crate) fn wait_for_room(session: &Session) {
    if session.outbox.is_full() {
        // After an error, the loop gets the same error and ends.
        let _ = stdio::write_all(session);
    }
}

/// A waker that records whether a check was woken.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
