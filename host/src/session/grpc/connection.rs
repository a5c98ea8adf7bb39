//! One connection: HTTP/2, and the calls that are served on it, in one task.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::unconstrained;

use super::gate::Gate;
use super::portions::{Allowance, Portions};
use super::visitor::Visitor;

/// How long a connection may be silent before it is asked whether it is still there: the
/// reference's time.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// How long the answer may take, or the connection has ended: the reference's time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Calls that may be under way on one connection. Far more than keep both sides busy, as
/// a limit that is felt would throttle the plugin; bounds what unfinished ones take.
const MAX_CALLS: u32 = 1 << 16;

/// Calls that may be taken back before they were looked at. A plugin that is asked to
/// finish takes back many.
const MAX_TAKEN_BACK: usize = 1 << 14;

/// Bytes of one call, and of all calls of a connection, that may be on their way to us.
const CALL_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Serves the calls of one connection until it ends, or is to be cut.
pub(super) async fn serve(stream: TcpStream, visitor: Arc<Visitor>) {
    // Verdicts are small, and waited for.
    let _slower = stream.set_nodelay(true);
    let calls = Calls::default();
    let allowance = Allowance::default();
    let connection = http2::Builder::new(calls.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_CALLS)
        .max_pending_accept_reset_streams(MAX_TAKEN_BACK)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .auto_date_header(false)
        .serve_connection(
            TokioIo::new(Portions::new(stream, allowance.clone())),
            Gate::new(Arc::clone(&visitor)),
        );
    tokio::select! {
        biased;
        () = drive(connection, calls, allowance) => {}
        // A connection without a pause uses up all that its task may do in one go, and
        // leaves nothing for this to be seen with.
        () = unconstrained(visitor.dismissed()) => {}
    }
}

/// Polls the connection and its calls in turn, for as long as anything moves. They have
/// one task together: a verdict costs no task switch, and no lock is fought for.
///
/// By turns and in portions, or h2 would read all that the plugin has sent before anything
/// of it is served; and where that is very much, take it for an attack.
async fn drive<E>(
    connection: impl Future<Output = Result<(), E>>,
    calls: Calls,
    allowance: Allowance,
) {
    let mut connection = pin!(connection);
    let mut waiting = FuturesUnordered::new();
    poll_fn(|cx| {
        loop {
            allowance.renew();
            // Why it has ended is of no interest: the plugin's end tells more.
            if let Poll::Ready(_ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(());
            }
            let moved = calls.poll(cx, &mut waiting);
            if !moved && !allowance.is_used_up() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The calls of one connection that were not polled yet.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<Serving>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    fn execute(&self, serving: F) {
        self.new_ones().push(Box::pin(serving));
    }
}

impl Calls {
    /// Polls new calls, and those that wait and can go on. Returns whether there were any.
    fn poll(&self, cx: &mut Context<'_>, waiting: &mut FuturesUnordered<Serving>) -> bool {
        let new_ones = std::mem::take(&mut *self.new_ones());
        let mut moved = !new_ones.is_empty();
        for mut serving in new_ones {
            // Most are over at once.
            if serving.as_mut().poll(cx).is_pending() {
                waiting.push(serving);
            }
        }
        while let Poll::Ready(Some(())) = waiting.poll_next_unpin(cx) {
            moved = true;
        }
        moved
    }

    fn new_ones(&self) -> std::sync::MutexGuard<'_, Vec<Serving>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
