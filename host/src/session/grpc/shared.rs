//! The state that a session shares with the calls of its plugin.
//!
//! Calls are served in the tasks of their connections, and the session is polled in the
//! task of the supervisor. Verdicts and log lines take effect in the call itself: before
//! the plugin gets its reply, and without a task switch.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use admission_proto::wire::plugin::{Admission, ListMetadataRequest, ListMetadataResponse};
use admission_proto::wire::{Message as _, PROTOCOL_VERSION};
use admission_proto::{Code, LogLevel, Status};
use futures_util::Stream;
use futures_util::task::AtomicWaker;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::session::{Event, MetadataCall, SessionError, SessionEvents, listing};

/// Limit of admissions that are queued for the stream. Further checks stay in the check cache
/// until half of the queue is sent.
const MAX_QUEUED_ADMISSIONS: usize = 1_024;

/// Bytes of metadata calls that are queued for the session.
const MAX_QUEUED_CALLS: usize = 8 << 20;

/// Bytes of all requests of a plugin that are being received.
const MAX_REQUEST_MEMORY: usize = 64 << 20;

/// The error of checks if the stream of admissions ends and the plugin does not exit. In the
/// reference, a close has the same text.
const STREAM_ENDED: &str = "the admission plugin is terminating";

/// The state that the session of one plugin shares with the plugin's calls.
pub(super) struct SharedSession {
    session_events: Arc<dyn SessionEvents>,
    state: Mutex<State>,
    /// Wakes the session when [`Self::poll_events`] has something new.
    waker: AtomicWaker,
    /// Wakes the stream when [`State::admissions`] has something new.
    stream_waker: AtomicWaker,
    /// Memory budget of the plugin's requests, in bytes.
    pub(super) request_memory: Arc<Semaphore>,
    /// Bytes of replies with metadata that the plugin has not read.
    unwritten: AtomicUsize,
    /// Cancelled when the session has ended, and its connections must be closed.
    pub(super) ended: CancellationToken,
}

#[derive(Default)]
struct State {
    stream: StreamState,
    connections: usize,
    /// Events that `poll_events` has not returned.
    events: Vec<Event>,
    /// Bytes of the metadata calls in `events`.
    queued_call_bytes: usize,
    admissions: VecDeque<Admission>,
    /// Whether the session must be woken when half of the admissions are sent.
    full: bool,
    /// Whether half of the admissions were sent since the last `poll_events`.
    half_sent: bool,
    /// Metadata calls that wait for their replies.
    calls: HashMap<u64, oneshot::Sender<Reply>>,
    next_call_id: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum StreamState {
    /// The plugin has not called ListAdmissions.
    #[default]
    NotRequested,
    Open,
    /// The plugin cannot open another stream.
    Ended,
    /// The plugin was asked to shut down.
    Finishing,
}

type Reply = Result<(ListMetadataResponse, UnwrittenReply), Status>;

// Methods for the plugin's calls.
impl SharedSession {
    /// Creates the state of a session. Verdicts and log lines go to `session_events`.
    pub(super) fn new(session_events: Arc<dyn SessionEvents>) -> Self {
        Self {
            session_events,
            state: Mutex::default(),
            waker: AtomicWaker::new(),
            stream_waker: AtomicWaker::new(),
            request_memory: Arc::new(Semaphore::new(MAX_REQUEST_MEMORY)),
            unwritten: AtomicUsize::new(0),
            ended: CancellationToken::new(),
        }
    }

    /// Opens the stream of admissions.
    pub(super) fn list_admissions(
        self: &Arc<Self>,
        protocol_version: i32,
        plugin_version: String,
    ) -> Result<AdmissionStream, tonic::Status> {
        let mut state = self.lock();
        match state.stream {
            StreamState::NotRequested => {}
            StreamState::Finishing => return Err(terminating_status()),
            StreamState::Open | StreamState::Ended => {
                let text = "already called ListAdmissions";
                return Err(tonic::Status::failed_precondition(text));
            }
        }
        let supported = protocol_version == PROTOCOL_VERSION;
        state.stream = if supported {
            StreamState::Open
        } else {
            StreamState::Ended
        };
        self.push_event(
            state,
            Event::Connected {
                protocol_version,
                plugin_version,
            },
        );
        if !supported {
            // Not FAILED_PRECONDITION, at which the reference's plugins crash.
            let error = SessionError::version(protocol_version);
            return Err(tonic::Status::aborted(error.text));
        }
        Ok(AdmissionStream(Arc::clone(self)))
    }

    /// Applies a verdict.
    pub(super) fn resolve(&self, admission_id: &str, status: Status) {
        self.session_events.settle(admission_id, status);
    }

    /// Logs a line.
    pub(super) fn log(&self, level: LogLevel, message: &str) {
        self.session_events.log(level, message);
    }

    /// Passes a metadata call to the session and waits for the reply. Dropping the future
    /// cancels the call.
    ///
    /// # Errors
    ///
    /// CANCELLED if the plugin was asked to shut down, RESOURCE_EXHAUSTED if too many calls
    /// are queued, or the error of the call.
    pub(super) async fn list_metadata(&self, request: ListMetadataRequest) -> Reply {
        let (sender, receiver) = oneshot::channel();
        let call_id = self.start_call(request, sender)?;
        let _cancel = CancelOnDrop {
            session: self,
            call_id,
        };
        receiver.await.unwrap_or_else(|_| Err(finishing_status()))
    }

    fn start_call(
        &self,
        mut request: ListMetadataRequest,
        reply: oneshot::Sender<Reply>,
    ) -> Result<u64, Status> {
        let size = size_of::<MetadataCall>() + request.encoded_len();
        let mut state = self.lock();
        if state.stream == StreamState::Finishing {
            return Err(finishing_status());
        }
        if state.queued_call_bytes + size > MAX_QUEUED_CALLS {
            let text = "too many metadata calls at once";
            return Err(Status::new(Code::RESOURCE_EXHAUSTED, text));
        }
        let call_id = state.next_call_id;
        state.next_call_id += 1;
        state.queued_call_bytes += size;
        state.calls.insert(call_id, reply);
        let call = MetadataCall {
            call_id,
            admission_id: None,
            service_url: std::mem::take(&mut request.service_url),
            request: listing::to_request(request),
        };
        self.push_event(state, Event::MetadataCall(call));
        Ok(call_id)
    }

    /// Adds one to the plugin's connections. Returns whether there were fewer than `max`.
    pub(super) fn add_connection(&self, max: usize) -> bool {
        let mut state = self.lock();
        let added = state.connections < max;
        state.connections += usize::from(added);
        added
    }

    /// Subtracts one from the plugin's connections.
    pub(super) fn remove_connection(&self) {
        self.lock().connections -= 1;
        self.waker.wake();
    }
}

// Methods for the session.
impl SharedSession {
    /// Moves all queued events to `events`. Returns whether there were any, or the stream has room
    /// again; otherwise the task is woken then.
    pub(super) fn poll_events(&self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> bool {
        self.waker.register(cx.waker());
        let mut state = self.lock();
        state.queued_call_bytes = 0;
        let received = !state.events.is_empty();
        events.append(&mut state.events);
        std::mem::take(&mut state.half_sent) || received
    }

    /// Returns whether the stream has room for another admission.
    pub(super) fn has_room(&self) -> bool {
        let mut state = self.lock();
        if state.stream != StreamState::Open {
            return false;
        }
        state.full = state.admissions.len() >= MAX_QUEUED_ADMISSIONS;
        !state.full
    }

    /// Queues an admission for the stream.
    pub(super) fn admit(&self, admission: Admission) {
        self.lock().admissions.push_back(admission);
        self.stream_waker.wake();
    }

    /// Replies to a metadata call with a page and its length in bytes, or an error.
    pub(super) fn reply(
        self: &Arc<Self>,
        call_id: u64,
        reply: Result<(ListMetadataResponse, usize), Status>,
    ) {
        let Some(call) = self.lock().calls.remove(&call_id) else {
            return;
        };
        let reply = reply.map(|(page, bytes)| {
            self.unwritten.fetch_add(bytes, Ordering::AcqRel);
            let session = Arc::clone(self);
            (page, UnwrittenReply { session, bytes })
        });
        // Fails if the call is cancelled at this moment.
        let _cancelled = call.send(reply);
    }

    /// Returns how many bytes of replies the plugin has not read.
    pub(super) fn unwritten_replies(&self) -> usize {
        self.unwritten.load(Ordering::Acquire)
    }

    /// Ends the stream and the metadata calls.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        state.stream = StreamState::Finishing;
        state.admissions = VecDeque::new();
        let calls = std::mem::take(&mut state.calls);
        drop(state);
        drop(calls);
        self.stream_waker.wake();
    }

    /// Reports that the plugin can no longer be reached.
    pub(super) fn fail(&self, error: SessionError) {
        self.push_event(self.lock(), Event::Failed(error));
    }

    /// Returns whether the plugin has a connection.
    pub(super) fn is_connected(&self) -> bool {
        self.lock().connections > 0
    }

    fn push_event(&self, mut state: MutexGuard<'_, State>, event: Event) {
        state.events.push(event);
        drop(state);
        self.waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The stream of admissions. Dropping it ends the stream.
pub(super) struct AdmissionStream(Arc<SharedSession>);

impl Stream for AdmissionStream {
    type Item = Result<Admission, tonic::Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let session = &self.0;
        let mut state = session.lock();
        if state.stream == StreamState::Finishing {
            return Poll::Ready(Some(Err(terminating_status())));
        }
        let Some(admission) = state.admissions.pop_front() else {
            // Under the lock, so that an admission that is queued later wakes the stream.
            session.stream_waker.register(cx.waker());
            return Poll::Pending;
        };
        if state.full && state.admissions.len() <= MAX_QUEUED_ADMISSIONS / 2 {
            state.full = false;
            state.half_sent = true;
            drop(state);
            session.waker.wake();
        }
        Poll::Ready(Some(Ok(admission)))
    }
}

impl Drop for AdmissionStream {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if state.stream == StreamState::Open {
            state.stream = StreamState::Ended;
            state.admissions = VecDeque::new();
            self.0
                .push_event(state, Event::OutputEnded { text: STREAM_ENDED });
        }
    }
}

/// Cancels a metadata call that has no reply yet.
struct CancelOnDrop<'a> {
    session: &'a SharedSession,
    call_id: u64,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        if state.calls.remove(&self.call_id).is_some() {
            let call_id = self.call_id;
            self.session
                .push_event(state, Event::CallCancelled { call_id });
        }
    }
}

/// Counts a reply as unwritten until it is dropped.
pub(super) struct UnwrittenReply {
    session: Arc<SharedSession>,
    bytes: usize,
}

impl Drop for UnwrittenReply {
    fn drop(&mut self) {
        let Self { session, bytes } = self;
        session.unwritten.fetch_sub(*bytes, Ordering::AcqRel);
        session.waker.wake();
    }
}

/// Ends the stream when the host closes the plugin.
fn terminating_status() -> tonic::Status {
    tonic::Status::aborted("terminating")
}

/// Ends a metadata call when the host closes the plugin.
fn finishing_status() -> Status {
    Status::new(Code::CANCELLED, "the host asked the plugin to shut down")
}

/// Locks a mutex. The states in this module stay consistent if a holder panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures_util::StreamExt as _;

    use super::*;

    struct NoEvents;

    impl SessionEvents for NoEvents {
        fn settle(&self, _: &str, _: Status) {}

        fn log(&self, _: LogLevel, _: &str) {}

        fn count_unknown_frame(&self) {}
    }

    #[test]
    fn a_stream_that_drains_before_a_poll_is_reported_by_it() {
        let session = Arc::new(SharedSession::new(Arc::new(NoEvents)));
        let stream = session.list_admissions(PROTOCOL_VERSION, String::new());
        let mut stream = stream.expect("the first stream");
        let mut cx = Context::from_waker(Waker::noop());
        let mut events = Vec::new();
        assert!(session.poll_events(&mut cx, &mut events));
        while session.has_room() {
            session.admit(Admission::default());
        }
        assert!(!session.poll_events(&mut cx, &mut events));
        while !session.lock().half_sent {
            assert!(stream.poll_next_unpin(&mut cx).is_ready());
        }
        assert!(session.poll_events(&mut cx, &mut events));
        assert!(session.has_room());
    }
}
