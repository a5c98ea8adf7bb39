//! Checks, and the current check of each thread.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use admission_proto::Admission;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Check>>> = const { RefCell::new(None) };
}

/// A request of the host to judge a pin.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) admission: Admission,
    settled: AtomicBool,
}

impl Check {
    pub(crate) fn new(admission: Admission) -> Self {
        Self {
            admission,
            settled: AtomicBool::new(false),
        }
    }

    /// Returns the check whose handler this thread is polling.
    pub(crate) fn current() -> Option<Arc<Self>> {
        // A thread may still log while it drops its thread-locals.
        CURRENT.try_with(|current| current.borrow().clone()).ok()?
    }

    /// Runs `future` with this as the current check.
    pub(crate) async fn scope<T>(self: &Arc<Self>, future: impl Future<Output = T>) -> T {
        /// Restores the previous check, even if a poll panics.
        struct Restore(Option<Arc<Check>>);

        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }

        let mut future = pin!(future);
        poll_fn(|cx| {
            let _restore = Restore(CURRENT.replace(Some(Arc::clone(self))));
            future.as_mut().poll(cx)
        })
        .await
    }

    /// Returns whether the check has a verdict.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// Marks the check as settled. Returns whether this was the first time.
    pub(crate) fn mark_settled(&self) -> bool {
        !self.settled.swap(true, Ordering::Relaxed)
    }
}
