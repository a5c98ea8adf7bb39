//! The run loop of a native plugin: two threads for the wire, a runtime for the handlers.
//!
//! No handler runs on the threads of the wire, so none can hold them up, and what ends
//! the conversation is seen at once.

#[cfg(feature = "grpc")]
pub mod connection;
mod frames;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "grpc")]
mod handshake;
mod signal;
mod stdio;

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use self::stdio::{Input, Output};
use crate::conversation::{Check, Conversation};
#[cfg(feature = "grpc")]
use crate::inbox::Wire;
use crate::{Handler, RunError, inbox, verdict};

/// How long handlers' futures have to be dropped. One that blocks its thread is left to
/// the end of the process.
const DROP_GRACE: Duration = Duration::from_millis(100);

/// How long a host that ended stdin has to take the last lines.
const FLUSH_GRACE: Duration = Duration::from_secs(1);

/// Why a conversation ended; `Ok` is the end of stdin.
type End = Result<(), RunError>;

pub(crate) fn run(version: &str, handler: impl Handler) -> Result<(), RunError> {
    if Handle::try_current().is_ok() {
        return Err(RunError::InsideRuntime);
    }
    let (end, ended) = ends();
    converse(version, handler, end, &ended)
}

/// Runs the plugin until the host ends stdin, without blocking the calling thread.
///
/// As [`run_plugin`](crate::run_plugin), but for programs that have a tokio runtime of
/// their own. Handlers run on the SDK's runtime all the same, so the caller's may be of
/// any kind and may be busy.
///
/// # Errors
///
/// As [`run_plugin`](crate::run_plugin), except that it may be called in a runtime.
///
/// # Cancel safety
///
/// Dropping the future ends the plugin as the end of stdin does. It cannot be run again.
pub async fn run_plugin_async(version: &str, handler: impl Handler) -> Result<(), RunError> {
    /// Ends the conversation when the caller's future is dropped.
    struct EndOnDrop(SyncSender<End>);

    impl Drop for EndOnDrop {
        fn drop(&mut self) {
            // A full channel says that it has ended already.
            let _ = self.0.try_send(Ok(()));
        }
    }

    let (end, ended) = ends();
    let _guard = EndOnDrop(end.clone());
    let (done, result) = oneshot::channel();
    let version = version.to_owned();
    spawn("admission-run", move || {
        // Nobody wants the result when the future was dropped.
        let _ = done.send(converse(&version, handler, end, &ended));
    })?;
    result.await.expect("the thread sends before it ends")
}

/// Returns a channel with room for every end there can be: of the two frame threads and
/// of the caller's future.
fn ends() -> (SyncSender<End>, Receiver<End>) {
    mpsc::sync_channel(3)
}

fn converse(
    version: &str,
    handler: impl Handler,
    end: SyncSender<End>,
    ended: &Receiver<End>,
) -> Result<(), RunError> {
    let conversation = Conversation::begin(version)?;
    let (input, output) = stdio::take()?;
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .thread_name("admission-handler")
        .build()
        .map_err(RunError::Thread)?;
    let (done, written) = mpsc::sync_channel(1);
    let talk = Arc::new(Talk {
        conversation: Arc::clone(&conversation),
        handler: Arc::new(handler),
        tasks: runtime.handle().clone(),
        end,
        done,
    });
    spawn("admission-read", move || {
        let outcome = talk.read(&input, output);
        // The channel has room for one end of each thread.
        let _ = talk.end.try_send(outcome);
    })?;

    let outcome = ended.recv().expect("the reader says how it ended");

    conversation.end();
    runtime.shutdown_timeout(DROP_GRACE);
    conversation.outbox().close();
    // An error of the writer has no reader any more, and a host that takes nothing has
    // asked us to finish all the same.
    let _ = written.recv_timeout(FLUSH_GRACE);
    outcome
}

/// What the threads of a conversation share.
struct Talk<H> {
    conversation: Arc<Conversation>,
    handler: Arc<H>,
    tasks: Handle,
    end: SyncSender<End>,
    done: SyncSender<()>,
}

impl<H: Handler> Talk<H> {
    /// Reads until stdin ends, and has the rest done as the wire needs it.
    fn read(self: &Arc<Self>, input: &Input, output: Output) -> Result<(), RunError> {
        let first = first_bytes(input)?;
        match inbox::wire(&first) {
            #[cfg(feature = "grpc")]
            Some(Wire::Grpc) => grpc::converse(input, first, self),
            _ => frames::converse(input, output, &first, self),
        }
    }

    /// Has the handler judge a check.
    fn start(&self, check: Arc<Check>) {
        // The runtime owns the task; it drops it when stdin has ended.
        self.tasks.spawn(answer(
            Arc::clone(&self.conversation),
            Arc::clone(&self.handler),
            check,
        ));
    }

    /// Hears how the writing of what the outbox had has ended.
    fn written(&self, outcome: End) {
        if outcome.is_err() {
            // What is said from now on is lost; nobody shall wait for room.
            self.conversation.outbox().close();
        }
        // The channel has room for one end of each thread; of the first is heard.
        let _ = self.end.try_send(outcome);
        // Nobody waits for it before there is an end.
        let _ = self.done.try_send(());
    }
}

/// Reads until the wire is known or stdin ends.
fn first_bytes(input: &Input) -> Result<Vec<u8>, RunError> {
    let mut first = Vec::new();
    let mut more = [0; 512];
    while inbox::wire(&first).is_none() {
        match input.read(&mut more)? {
            0 => break,
            count => first.extend_from_slice(&more[..count]),
        }
    }
    Ok(first)
}

/// Answers one check, also when the handler panics.
async fn answer(conversation: Arc<Conversation>, handler: Arc<impl Handler>, check: Arc<Check>) {
    let judging = Arc::clone(&conversation).judge(handler, Arc::clone(&check));
    // Nothing of a check is looked at after its panic but the flag that says whether it is
    // decided; the handler is the author's, who says what its state is worth.
    if let Err(payload) = AssertUnwindSafe(judging).catch_unwind().await {
        conversation.decide(&check, Err(verdict::panicked(payload.as_ref())));
    }
}

/// Waits until the host has taken enough for a log line to be queued.
pub(crate) fn wait_for_room(conversation: &Conversation) {
    signal::block_on(poll_fn(|cx| conversation.outbox().poll_room(cx)));
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), RunError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
        .map_err(RunError::Thread)
}
