//! Waiting for a future on a thread that has nothing else to do.

use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A flag that a thread waits for. Not `thread::park`: its token may be the author's.
#[derive(Debug, Default)]
struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn wait(&self) {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let mut raised = self
            .changed
            .wait_while(raised, |raised| !*raised)
            .unwrap_or_else(PoisonError::into_inner);
        *raised = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

/// Blocks the thread until `future` is ready.
///
/// Works on any thread, those of a runtime included, which tokio's own does not; a
/// handler that logs may have to wait on one.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    if let Poll::Ready(ready) = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        return ready;
    }
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    let mut cx = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(ready) => return ready,
            Poll::Pending => signal.wait(),
        }
    }
}
