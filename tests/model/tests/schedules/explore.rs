//! Runs threads in every order.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Notify;
use loom::thread::JoinHandle;

/// How often threads are interrupted in one order, unless the environment says otherwise.
/// Races that need more are rare, and each costs ten times the time.
const PREEMPTIONS: usize = 2;

/// Runs `scene` in every order of its threads, and returns what it returned in any.
pub(crate) fn explore<T>(scene: impl Fn() -> T + Send + Sync + 'static) -> BTreeSet<T>
where
    T: Ord + Send + 'static,
{
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(PREEMPTIONS);
    let each = Arc::clone(&seen);
    model.check(move || {
        let result = scene();
        each.lock().expect("not poisoned").insert(result);
    });
    std::mem::take(&mut *seen.lock().expect("not poisoned"))
}

/// Waits for a thread.
pub(crate) fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("no thread panics")
}

/// Waits for `future` on this thread, polling it only when it was woken.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let woken = Arc::new(Woken(Notify::new()));
    let waker = Waker::from(Arc::clone(&woken));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        woken.0.wait();
    }
}

struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}
