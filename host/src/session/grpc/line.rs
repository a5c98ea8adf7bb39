//! What a session and the calls of its plugin share.
//!
//! Calls come in on the tasks of connections, and the session is polled by another. What
//! a plugin is answered to has had its effect by then: verdicts and log lines take it at
//! once, where the call is served, and cost no task switch.

mod admissions;
mod calls;
mod counts;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use admission_proto::Status;
use admission_proto::wire::PROTOCOL_VERSION;
use admission_proto::wire::plugin::{Admission, ListMetadataResponse};
use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub(super) use self::admissions::Admissions;
pub(super) use self::counts::{Claim, Connected, Unwritten};
use crate::log::LogLevel;
use crate::session::{Event, SessionError, SessionEvents};

/// Admissions that wait for the stream. What is beyond them stays with the checks, where
/// it costs no more, until half of these are taken.
const QUEUE: usize = 1_024;

/// One plugin as its calls reach it.
pub(super) struct Line {
    session_events: Arc<dyn SessionEvents>,
    state: Mutex<State>,
    /// Wakes the session when there is something for it.
    session: AtomicWaker,
    connections: AtomicUsize,
    /// Bytes of messages that are on their way to us.
    incoming: AtomicUsize,
    /// Bytes of answers that the plugin has not taken yet.
    unwritten: AtomicUsize,
    /// Cuts the connections.
    gone: CancellationToken,
}

#[derive(Default)]
struct State {
    stage: Stage,
    /// Whether what the plugin says is ignored.
    deaf: bool,
    /// What the session has not seen yet.
    events: Vec<Event>,
    /// Bytes of the calls in `events`.
    unseen: usize,
    queue: VecDeque<Admission>,
    /// Whether the session waits for room in the queue.
    full: bool,
    /// Wakes the stream when there is something for it.
    stream: Option<Waker>,
    calls: HashMap<u64, oneshot::Sender<Answer>>,
    next_call: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// The plugin has not asked for admissions.
    #[default]
    Connecting,
    /// It has, and the stream is there.
    Streaming,
    /// It has, and there is no stream any more.
    Streamed,
    /// It was asked to finish.
    Finishing,
}

/// What a call for metadata is answered with.
pub(super) type Answer = Result<(ListMetadataResponse, Unwritten), Status>;

// What the plugin does.
impl Line {
    pub(super) fn new(session_events: Arc<dyn SessionEvents>) -> Self {
        Self {
            session_events,
            state: Mutex::default(),
            session: AtomicWaker::new(),
            connections: AtomicUsize::new(0),
            incoming: AtomicUsize::new(0),
            unwritten: AtomicUsize::new(0),
            gone: CancellationToken::new(),
        }
    }

    /// Waits until the plugin is gone, and its connections are to be cut.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Begins the stream of admissions.
    pub(super) fn list_admissions(
        self: &Arc<Self>,
        protocol_version: i32,
        plugin_version: String,
    ) -> Result<Admissions, tonic::Status> {
        let mut state = self.lock();
        match state.stage {
            Stage::Connecting => {}
            Stage::Finishing => return Err(terminating()),
            Stage::Streaming | Stage::Streamed => {
                let text = "already called ListAdmissions";
                return Err(tonic::Status::failed_precondition(text));
            }
        }
        let speaks_ours = protocol_version == PROTOCOL_VERSION;
        state.stage = if speaks_ours {
            Stage::Streaming
        } else {
            Stage::Streamed
        };
        state.events.push(Event::Connected {
            protocol_version,
            plugin_version,
        });
        drop(state);
        self.session.wake();
        if !speaks_ours {
            // Not FAILED_PRECONDITION, at which the reference's plugins crash.
            return Err(tonic::Status::aborted(
                SessionError::version(protocol_version).text,
            ));
        }
        Ok(Admissions(Arc::clone(self)))
    }

    pub(super) fn resolve(&self, admission_id: &str, status: Status) {
        self.session_events.settle(admission_id, status);
    }

    pub(super) fn log(&self, level: LogLevel, message: &str) {
        let deaf = self.lock().deaf;
        if !deaf {
            self.session_events.log(level, message);
        }
    }
}

// What the session does.
impl Line {
    /// Takes what was heard; else the task is woken when there is something.
    pub(super) fn poll_events(&self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> bool {
        self.session.register(cx.waker());
        let mut state = self.lock();
        let before = events.len();
        state.unseen = 0;
        events.append(&mut state.events);
        events.len() > before
    }

    pub(super) fn has_room(&self) -> bool {
        let mut state = self.lock();
        if state.stage != Stage::Streaming {
            return false;
        }
        state.full = state.queue.len() >= QUEUE;
        !state.full
    }

    pub(super) fn admit(&self, admission: Admission) {
        let mut state = self.lock();
        state.queue.push_back(admission);
        let stream = state.stream.take();
        drop(state);
        wake(stream);
    }

    pub(super) fn answer(
        self: &Arc<Self>,
        call_id: u64,
        answer: Result<(ListMetadataResponse, usize), Status>,
    ) {
        let Some(call) = self.lock().calls.remove(&call_id) else {
            return;
        };
        let answer = answer.map(|(page, bytes)| (page, Unwritten::new(self, bytes)));
        // If it was cancelled in this moment, nobody waits.
        let _cancelled = call.send(answer);
    }

    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Acquire)
    }

    /// Asks the plugin to finish: ends the stream, and every call that waits.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        state.stage = Stage::Finishing;
        state.queue = VecDeque::new();
        let calls = std::mem::take(&mut state.calls);
        let stream = state.stream.take();
        drop(state);
        drop(calls);
        wake(stream);
    }

    /// Ignores what the plugin says from now on.
    pub(super) fn ignore(&self) {
        self.lock().deaf = true;
    }

    /// Tells the session that the plugin cannot be reached any more.
    pub(super) fn fail(&self, error: SessionError) {
        self.lock().events.push(Event::Failed(error));
        self.session.wake();
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connections.load(Ordering::Acquire) > 0
    }

    /// Cuts the connections.
    pub(super) fn cut(&self) {
        self.gone.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Ends the stream when the host ends the plugin.
fn terminating() -> tonic::Status {
    tonic::Status::aborted("terminating")
}

/// Ends a call when the host ends the plugin.
fn finishing() -> Status {
    Status::new(admission_proto::Code::CANCELLED, "the plugin is to finish")
}
