//! The run loop of a native plugin: two threads for the frames, a runtime for the handlers.
//!
//! No handler runs on the threads of the frames, so none can hold them up, and what ends
//! the conversation is seen at once.

mod signal;
mod stdio;

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use self::stdio::{Input, Output};
use crate::conversation::{Check, Conversation};
use crate::inbox::Inbox;
use crate::{Handler, RunError, verdict};

/// How long handlers' futures have to be dropped. One that blocks its thread is left to
/// the end of the process.
const DROP_GRACE: Duration = Duration::from_millis(100);

/// How long a host that ended stdin has to take the last lines.
const FLUSH_GRACE: Duration = Duration::from_secs(1);

/// Bytes asked for at once: some 400 admissions.
const READ_SIZE: usize = 64 << 10;

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
    let (input, output) = stdio::take().map_err(RunError::Stdio)?;
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .thread_name("admission-handler")
        .build()
        .map_err(RunError::Thread)?;
    let written = start_writer(output, &conversation, end.clone())?;
    start_reader(input, &conversation, handler, &runtime, end)?;

    let outcome = ended.recv().expect("the reader says how it ended");

    conversation.end();
    runtime.shutdown_timeout(DROP_GRACE);
    conversation.outbox().close();
    // An error of the writer has no reader any more, and a host that takes nothing has
    // asked us to finish all the same.
    let _ = written.recv_timeout(FLUSH_GRACE);
    outcome
}

/// Starts to write what the outbox has. The receiver hears when all is written.
fn start_writer(
    output: Output,
    conversation: &Arc<Conversation>,
    end: SyncSender<End>,
) -> Result<Receiver<()>, RunError> {
    let conversation = Arc::clone(conversation);
    let (done, written) = mpsc::sync_channel(1);
    spawn("admission-write", move || {
        if let Err(error) = write_frames(&output, &conversation) {
            // What is said from now on is lost; nobody shall wait for room.
            conversation.outbox().close();
            let _ = end.try_send(Err(error));
        }
        // Nobody waits for it before stdin has ended.
        let _ = done.try_send(());
    })?;
    Ok(written)
}

fn write_frames(output: &Output, conversation: &Conversation) -> Result<(), RunError> {
    let next = || signal::block_on(poll_fn(|cx| conversation.outbox().poll_take(cx)));
    while let Some(batch) = next() {
        output
            .write_all(&batch.bytes)
            .map_err(|source| RunError::Write {
                owed: conversation.owed(),
                source,
            })?;
        conversation.wrote(batch.verdicts);
    }
    Ok(())
}

/// Starts to read frames and to hand the checks among them to `runtime`.
fn start_reader(
    input: Input,
    conversation: &Arc<Conversation>,
    handler: impl Handler,
    runtime: &Runtime,
    end: SyncSender<End>,
) -> Result<(), RunError> {
    let conversation = Arc::clone(conversation);
    let handler = Arc::new(handler);
    let tasks = runtime.handle().clone();
    spawn("admission-read", move || {
        let outcome = read_frames(&input, &conversation, |check| {
            // The runtime owns the task; it drops it when stdin has ended.
            tasks.spawn(answer(
                Arc::clone(&conversation),
                Arc::clone(&handler),
                check,
            ));
        });
        // The channel has room for one end of each thread.
        let _ = end.try_send(outcome);
    })
}

fn read_frames(
    input: &Input,
    conversation: &Conversation,
    start: impl Fn(Arc<Check>),
) -> Result<(), RunError> {
    let mut inbox = Inbox::default();
    let mut bytes = vec![0; READ_SIZE];
    loop {
        let count = input.read(&mut bytes).map_err(RunError::Read)?;
        if count == 0 {
            return inbox.finish();
        }
        inbox.extend(&bytes[..count]);
        while let Some(heard) = inbox.next()? {
            conversation.hear(heard).into_iter().for_each(&start);
        }
    }
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
