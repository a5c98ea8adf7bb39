//! One connection of a plugin: HTTP/2, and the calls on it, in one task.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::unconstrained;

use super::authentication::Peer;
use super::service;
use super::shared::lock;

/// How long a connection may be idle before the host sends a ping: the reference's timeout.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// How long the host waits for the reply to a ping before it closes the connection: the
/// reference's timeout.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Limit of concurrent calls on one connection. Bounds the memory of unfinished calls. It is
/// far above what keeps both sides busy, so that it does not throttle the plugin.
const MAX_CALLS: u32 = 1 << 16;

/// Calls that the plugin may reset before the host has accepted them. A plugin resets many
/// when it is asked to shut down.
const MAX_RESET_CALLS: usize = 1 << 14;

/// Flow-control windows of one call and of a connection, in bytes.
const CALL_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Bytes that are read before the calls in them are served: about a hundred verdicts. So the
/// plugin handles the first replies while the host serves the next calls.
const READ_BUDGET: usize = 8 << 10;

/// Serves the calls of one connection until the peer or the host closes it.
pub(super) async fn serve(stream: TcpStream, peer: Arc<Peer>) {
    // Verdicts are small, and the host waits for them.
    let _slower = stream.set_nodelay(true);
    let calls = NewCalls::default();
    let budget = ReadBudget::default();
    let (stream, writer) = stream.into_split();
    let reader = BudgetedReader {
        stream,
        budget: budget.clone(),
    };
    let connection = http2::Builder::new(calls.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_CALLS)
        .max_pending_accept_reset_streams(MAX_RESET_CALLS)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .auto_date_header(false)
        .serve_connection(
            TokioIo::new(tokio::io::join(reader, writer)),
            service_fn(|request| service::call(&peer, request)),
        );
    tokio::select! {
        biased;
        () = drive(connection, calls, budget) => {}
        // A busy connection uses up the task's cooperative budget, so that without
        // `unconstrained` this branch would never be ready.
        () = unconstrained(peer.must_close()) => {}
    }
}

/// Polls the connection and its calls alternately until neither makes progress. Because they
/// share one task, a verdict costs no task switch and no contended lock.
///
/// Reads are bounded by a budget. Otherwise h2 would read everything that the plugin has sent
/// before any call is served, and would treat a large amount as an attack.
async fn drive<E>(
    connection: impl Future<Output = Result<(), E>>,
    new_calls: NewCalls,
    budget: ReadBudget,
) {
    let mut connection = pin!(connection);
    let mut pending_calls = FuturesUnordered::new();
    poll_fn(|cx| {
        loop {
            budget.refill();
            // The plugin's exit is more informative than the error of its connection.
            if let Poll::Ready(_result) = connection.as_mut().poll(cx) {
                return Poll::Ready(());
            }
            let progress = new_calls.poll(cx, &mut pending_calls);
            if !progress && !budget.is_exhausted() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

type CallFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The calls of one connection that were not polled yet.
#[derive(Clone, Default)]
struct NewCalls(Arc<Mutex<Vec<CallFuture>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for NewCalls {
    fn execute(&self, call: F) {
        lock(&self.0).push(Box::pin(call));
    }
}

impl NewCalls {
    /// Polls the new calls, and the pending ones that were woken. Returns whether there
    /// were any.
    fn poll(&self, cx: &mut Context<'_>, pending: &mut FuturesUnordered<CallFuture>) -> bool {
        let new = std::mem::take(&mut *lock(&self.0));
        let mut progress = !new.is_empty();
        for mut call in new {
            // Most are ready at once.
            if call.as_mut().poll(cx).is_pending() {
                pending.push(call);
            }
        }
        while let Poll::Ready(Some(())) = pending.poll_next_unpin(cx) {
            progress = true;
        }
        progress
    }
}

/// Bytes that may still be read from a connection.
#[derive(Clone, Default)]
struct ReadBudget(Arc<AtomicUsize>);

impl ReadBudget {
    fn refill(&self) {
        self.0.store(READ_BUDGET, Ordering::Relaxed);
    }

    fn is_exhausted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn spend(&self, bytes: usize) {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
    }
}

/// Reads until the budget is exhausted.
struct BudgetedReader {
    stream: OwnedReadHalf,
    budget: ReadBudget,
}

impl AsyncRead for BudgetedReader {
    /// Pending without a waker while the budget is exhausted: [`drive`] polls again after
    /// it has refilled the budget.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.budget.is_exhausted() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.budget.spend(buf.filled().len() - before);
        result
    }
}
