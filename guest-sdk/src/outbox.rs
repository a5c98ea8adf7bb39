//! Frames on their way to the host; performs no I/O.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use admission_proto::frame;
use admission_proto::wire::stdio::PluginFrame;

use crate::conversation::Check;

/// Bytes that may wait for the host before a handler that logs has to wait too. Verdicts
/// and metadata calls need no such bound: the host bounds how many checks are undecided.
const LOG_ROOM: usize = 1 << 20;

/// Collects encoded frames until somebody takes them all at once.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Batch,
    writer: Option<Waker>,
    loggers: Vec<Waker>,
    closed: bool,
}

/// Whole frames, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The frames, encoded.
    pub(crate) bytes: Vec<u8>,
    /// How many of them are verdicts.
    pub(crate) verdicts: usize,
    /// For each of them that is a log line, the check whose handler said it, if one did.
    pub(crate) speakers: Vec<Option<Arc<Check>>>,
}

/// What a frame is to those who take it.
#[derive(Debug)]
pub(crate) enum Kind {
    Verdict,
    /// A log line, said by the handler of a check if it is known.
    Line(Option<Arc<Check>>),
    Other,
}

impl Outbox {
    /// Appends a frame. After [`close`](Self::close) it is dropped.
    pub(crate) fn push(&self, frame: &PluginFrame, kind: Kind) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        frame::encode(frame, &mut state.waiting.bytes);
        match kind {
            Kind::Verdict => state.waiting.verdicts += 1,
            Kind::Line(speaker) => state.waiting.speakers.push(speaker),
            Kind::Other => {}
        }
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Takes everything that waits, as soon as there is something; `None` once the outbox
    /// is closed and empty. It is for a single writer.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        let mut state = self.lock();
        if state.waiting.bytes.is_empty() {
            if state.closed {
                return Poll::Ready(None);
            }
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let batch = mem::take(&mut state.waiting);
        let loggers = mem::take(&mut state.loggers);
        drop(state);
        loggers.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(batch))
    }

    /// Is ready when a log line may be pushed, or would be dropped.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.closed || state.waiting.bytes.len() < LOG_ROOM {
            return Poll::Ready(());
        }
        state.loggers.push(cx.waker().clone());
        Poll::Pending
    }

    /// Takes no more frames. Those that wait can still be taken.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let writer = state.writer.take();
        let loggers = mem::take(&mut state.loggers);
        drop(state);
        writer.into_iter().chain(loggers).for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; a frame is whole or not there.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn log(text: &str) -> PluginFrame {
        crate::log::frame("info", text.to_owned(), frame::HOST_LIMIT)
    }

    /// Pushes as many lines as there is room for.
    fn fill(outbox: &Outbox) {
        let mut cx = Context::from_waker(Waker::noop());
        while outbox.poll_room(&mut cx).is_ready() {
            outbox.push(&log(&"x".repeat(16 << 10)), Kind::Other);
        }
    }

    #[test]
    fn a_writer_is_woken_once_and_takes_all_frames_together() {
        let outbox = Outbox::default();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(outbox.poll_take(&mut cx).is_pending());
        outbox.push(&log("a"), Kind::Other);
        outbox.push(&log("b"), Kind::Verdict);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        let mut both = Vec::new();
        frame::encode(&log("a"), &mut both);
        frame::encode(&log("b"), &mut both);
        let Poll::Ready(Some(batch)) = outbox.poll_take(&mut cx) else {
            panic!("nothing to take");
        };
        assert_eq!((batch.bytes, batch.verdicts), (both, 1));
    }

    #[test]
    fn a_closed_outbox_hands_out_what_it_has_and_takes_no_more() {
        let outbox = Outbox::default();
        let mut cx = Context::from_waker(Waker::noop());
        outbox.push(&log("a"), Kind::Other);
        outbox.close();
        outbox.push(&log("b"), Kind::Other);
        let Poll::Ready(Some(batch)) = outbox.poll_take(&mut cx) else {
            panic!("nothing to take");
        };
        assert!(batch.bytes.ends_with(b"a"));
        assert!(matches!(outbox.poll_take(&mut cx), Poll::Ready(None)));
    }

    #[test]
    fn loggers_wait_while_a_mebibyte_is_unwritten() {
        let outbox = Outbox::default();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut cx = Context::from_waker(&waker);
        fill(&outbox);
        assert!(outbox.poll_room(&mut cx).is_pending());
        let Poll::Ready(Some(batch)) = outbox.poll_take(&mut cx) else {
            panic!("nothing to take");
        };
        assert!(batch.bytes.len() >= LOG_ROOM);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(outbox.poll_room(&mut cx).is_ready());
    }

    #[test]
    fn nobody_waits_for_room_in_a_closed_outbox() {
        let outbox = Outbox::default();
        fill(&outbox);
        outbox.close();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(outbox.poll_room(&mut cx).is_ready());
    }
}
