//! The queue of frames for the host; performs no I/O.

use std::future::poll_fn;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use admission_proto::frame;
use admission_proto::wire::plugin::{ListAdmissionsRequest, LogRequest, ResolveAdmissionRequest};
use admission_proto::wire::stdio::{ListMetadataCall, PluginFrame, plugin_frame::Frame};

/// Limit on the size of the queued log lines, in bytes. A handler that logs waits while the
/// queue is at the limit. Verdicts and metadata calls need no limit, because the host limits
/// the checks in flight.
const MAX_LOG_SIZE: usize = 1 << 20;

/// Memory of a queued line in addition to its text, in bytes: an element of the queue and two
/// short strings. It is counted so that the limit also applies to empty lines.
const LINE_OVERHEAD: usize = size_of::<Outbound>() + 64;

/// Most bytes that a frame adds to its message: a tag and a length.
pub(crate) const ENVELOPE: usize = 5;

/// Collects frames until the writer takes all of them.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Notified when a full queue is taken or closed.
    has_room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<Outbound>,
    /// Size of the queued log lines, in bytes.
    log_size: usize,
    writer: Option<Waker>,
    closed: bool,
}

/// A frame for the host.
#[derive(Debug, PartialEq)]
pub(crate) enum Outbound {
    Connect(ListAdmissionsRequest),
    Verdict(ResolveAdmissionRequest),
    Log {
        line: LogRequest,
        /// The check whose handler logged the line; `None` for other tasks and threads.
        admission_id: Option<String>,
    },
    MetadataCall(Box<ListMetadataCall>),
}

impl Outbox {
    /// Queues a frame. A closed outbox drops it.
    pub(crate) fn push(&self, outbound: Outbound) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if let Outbound::Log { line, .. } = &outbound {
            state.log_size += line.message.len() + LINE_OVERHEAD;
        }
        state.queue.push(outbound);
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Waits until frames are queued, and takes all of them. Returns `None` once the outbox is
    /// closed and empty. Supports a single writer.
    pub(crate) async fn take(&self) -> Option<Vec<Outbound>> {
        poll_fn(|cx| {
            let mut state = self.lock();
            if !state.queue.is_empty() {
                if state.is_full() {
                    self.has_room.notify_all();
                }
                state.log_size = 0;
                return Poll::Ready(Some(mem::take(&mut state.queue)));
            }
            if state.closed {
                return Poll::Ready(None);
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Returns whether another log line would have to wait.
    #[cfg(any(test, target_arch = "wasm32"))]
    pub(crate) fn is_full(&self) -> bool {
        self.lock().is_full()
    }

    /// Blocks the thread while too many log lines are queued, unless the outbox is closed.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn wait_for_room(&self) {
        let state = self.lock();
        drop(self.has_room.wait_while(state, |state| state.is_full()));
    }

    /// Makes the outbox drop all further frames. Queued frames can still be taken.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.has_room.notify_all();
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    #[cfg(all(feature = "grpc", not(target_arch = "wasm32")))]
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_full(&self) -> bool {
        !self.closed && self.log_size >= MAX_LOG_SIZE
    }
}

/// Appends all of `batch` to `out` as frames. Returns the number of verdicts.
pub(crate) fn encode(batch: Vec<Outbound>, out: &mut Vec<u8>) -> usize {
    let mut verdicts = 0;
    for outbound in batch {
        let frame = match outbound {
            Outbound::Connect(request) => Frame::ListAdmissions(request),
            Outbound::Verdict(verdict) => {
                verdicts += 1;
                Frame::ResolveAdmission(verdict)
            }
            Outbound::Log { line, .. } => Frame::Log(line),
            Outbound::MetadataCall(call) => Frame::ListMetadata(*call),
        };
        frame::encode(&PluginFrame { frame: Some(frame) }, out);
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};
    use std::thread;

    use futures_util::FutureExt as _;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn line(message: &str) -> Outbound {
        let line = LogRequest {
            severity: "info".into(),
            message: message.into(),
        };
        Outbound::Log {
            line,
            admission_id: None,
        }
    }

    fn verdict() -> Outbound {
        Outbound::Verdict(ResolveAdmissionRequest::default())
    }

    fn take(outbox: &Outbox) -> Option<Vec<Outbound>> {
        outbox.take().now_or_never().expect("it does not wait")
    }

    #[test]
    fn a_waiting_writer_is_woken_once_and_takes_all_frames() {
        let outbox = Outbox::default();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut taking = Box::pin(outbox.take());
        let mut cx = Context::from_waker(&waker);
        assert!(taking.poll_unpin(&mut cx).is_pending());
        outbox.push(line("a"));
        outbox.push(verdict());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        let both = Poll::Ready(Some(vec![line("a"), verdict()]));
        assert_eq!(taking.poll_unpin(&mut cx), both);
    }

    #[test]
    fn a_batch_is_encoded_as_frames_and_its_verdicts_are_counted() {
        let mut out = Vec::new();
        assert_eq!(encode(vec![line("a"), verdict(), verdict()], &mut out), 2);
        let mut buf = bytes::BytesMut::from(&out[..]);
        for _ in 0..3 {
            let frame = frame::take::<PluginFrame>(&mut buf, frame::HOST_LIMIT);
            assert!(frame.expect("a valid frame").is_some());
        }
        assert!(buf.is_empty());
    }

    #[test]
    fn a_closed_outbox_drops_further_frames() {
        let outbox = Outbox::default();
        outbox.push(line("a"));
        outbox.close();
        outbox.push(line("b"));
        assert_eq!(take(&outbox), Some(vec![line("a")]));
        assert_eq!(take(&outbox), None);
    }

    #[test]
    fn a_logger_waits_while_a_mebibyte_is_queued() {
        let outbox = Outbox::default();
        outbox.push(line(&"x".repeat(MAX_LOG_SIZE)));
        assert!(outbox.is_full());
        thread::scope(|scope| {
            let logger = scope.spawn(|| outbox.wait_for_room());
            assert!(take(&outbox).is_some());
            logger.join().expect("the logger does not panic");
        });
        assert!(!outbox.is_full());
    }

    #[test]
    fn empty_lines_are_limited_too() {
        let outbox = Outbox::default();
        for _ in 0..=MAX_LOG_SIZE / LINE_OVERHEAD {
            outbox.push(line(""));
        }
        assert!(outbox.is_full());
    }

    #[test]
    fn closing_the_outbox_wakes_waiting_loggers() {
        let outbox = Outbox::default();
        outbox.push(line(&"x".repeat(MAX_LOG_SIZE)));
        thread::scope(|scope| {
            let logger = scope.spawn(|| outbox.wait_for_room());
            outbox.close();
            logger.join().expect("the logger does not panic");
        });
    }
}
