//! The run loop of a native plugin: threads for the wire and a runtime for the handlers.
//!
//! No handler runs on the threads of the wire. A handler that blocks its thread therefore does
//! not delay the wire, and the loop notices at once when the session ends.

#[cfg(feature = "grpc")]
mod grpc;
mod stdio;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use self::stdio::{Input, Output};
use crate::check::Check;
use crate::detect_wire::detect_wire;
use crate::handler::judge;
use crate::session::Session;
use crate::{Handler, RunError};

/// How long the loop waits until the futures of handlers are dropped. A handler that blocks its
/// thread for longer may stay blocked until the process exits.
const DROP_GRACE: Duration = Duration::from_millis(100);

/// How long the host has to read the last log lines after it ended stdin.
const FLUSH_GRACE: Duration = Duration::from_secs(1);

/// How the session ended; `Ok` is the end of stdin.
type End = Result<(), RunError>;

/// Runs the session on this thread and on new threads.
pub(crate) fn run(session: Arc<Session>, handler: impl Handler) -> Result<(), RunError> {
    let (end, ended) = end_channel();
    run_until(&session, handler, end, &ended)
}

/// Runs the session on new threads. Dropping the future ends the session.
pub(crate) async fn run_on_thread(
    session: Arc<Session>,
    handler: impl Handler,
) -> Result<(), RunError> {
    struct EndOnDrop(SyncSender<End>);

    impl Drop for EndOnDrop {
        fn drop(&mut self) {
            // A full channel means that the session has ended.
            let _ = self.0.try_send(Ok(()));
        }
    }

    let (end, ended) = end_channel();
    let _guard = EndOnDrop(end.clone());
    let (done, result) = oneshot::channel();
    spawn("admission-run", move || {
        // The receiver is gone if the future was dropped.
        let _ = done.send(run_until(&session, handler, end, &ended));
    })?;
    result.await.expect("the thread sends before it ends")
}

/// Returns a channel with room for three results: one each from the reading thread, the writing
/// thread and the caller's future.
fn end_channel() -> (SyncSender<End>, Receiver<End>) {
    mpsc::sync_channel(3)
}

fn run_until(
    session: &Arc<Session>,
    handler: impl Handler,
    end: SyncSender<End>,
    ended: &Receiver<End>,
) -> Result<(), RunError> {
    let (input, output) = stdio::take().map_err(RunError::Stdio)?;
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .thread_name("admission-handler")
        .build()
        .map_err(RunError::Thread)?;
    let (flushed, is_flushed) = mpsc::sync_channel(1);
    let run_loop = Arc::new(RunLoop {
        session: Arc::clone(session),
        handler: Arc::new(handler),
        handlers: runtime.handle().clone(),
        end,
        flushed,
    });
    spawn("admission-read", move || {
        let outcome = run_loop.serve(&input, output);
        // Cannot be full: the channel has room for one result of each thread.
        let _ = run_loop.end.try_send(outcome);
    })?;

    let outcome = ended.recv().expect("the reading thread sends how it ended");

    session.end();
    runtime.shutdown_timeout(DROP_GRACE);
    session.outbox.close();
    // A timeout is not an error: the host has closed the plugin and need not read.
    let _ = is_flushed.recv_timeout(FLUSH_GRACE);
    outcome
}

/// State that the threads of the wire share.
struct RunLoop<H> {
    session: Arc<Session>,
    handler: Arc<H>,
    handlers: Handle,
    end: SyncSender<End>,
    flushed: SyncSender<()>,
}

impl<H: Handler> RunLoop<H> {
    /// Serves the wire that the host speaks. Returns at the end of stdin.
    fn serve(self: &Arc<Self>, input: &Input, output: Output) -> Result<(), RunError> {
        let mut first = Vec::new();
        while detect_wire(&first).is_none() && input.read_more(&mut first)? {}
        #[cfg(feature = "grpc")]
        if detect_wire(&first) == Some(admission_proto::Wire::Grpc) {
            return grpc::serve(input, first, self);
        }
        stdio::serve(input, output, &first, self)
    }

    /// Spawns the handler for a check.
    fn start(&self, check: Arc<Check>) {
        // The runtime owns the task, and drops it when the session ends.
        self.handlers.spawn(judge(
            Arc::clone(&self.session),
            Arc::clone(&self.handler),
            check,
        ));
    }

    /// Runs `write` on a new thread. `write` must write the queued frames until the outbox is
    /// closed.
    fn spawn_writer(
        self: &Arc<Self>,
        name: &str,
        write: impl FnOnce(&Self) -> Result<(), RunError> + Send + 'static,
    ) -> Result<(), RunError> {
        let run_loop = Arc::clone(self);
        spawn(name, move || {
            let outcome = write(&run_loop);
            if outcome.is_err() {
                // Further frames are lost, so no handler may wait for room.
                run_loop.session.outbox.close();
            }
            // Cannot be full: the channel has room for one result of each thread. The first one
            // counts.
            let _ = run_loop.end.try_send(outcome);
            let _ = run_loop.flushed.try_send(());
        })
    }
}

/// Blocks the thread until the outbox has room for another log line.
pub(crate) fn wait_for_room(session: &Session) {
    session.outbox.wait_for_room();
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), RunError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
        .map_err(RunError::Thread)
}
