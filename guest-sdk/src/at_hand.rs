//! The check whose handler a thread is polling: the one that a panic or a line is about.

use std::cell::RefCell;
use std::sync::Arc;

use crate::conversation::Check;

thread_local! {
    static AT_HAND: RefCell<Option<Arc<Check>>> = const { RefCell::new(None) };
}

/// Puts the check back that was at hand before, also when a handler panics.
struct Before(Option<Arc<Check>>);

impl Drop for Before {
    fn drop(&mut self) {
        AT_HAND.set(self.0.take());
    }
}

/// Runs `body` with `check` at hand.
pub(crate) fn with<T>(check: &Arc<Check>, body: impl FnOnce() -> T) -> T {
    let _before = Before(AT_HAND.replace(Some(Arc::clone(check))));
    body()
}

/// Returns the check at hand, if this thread is polling a handler.
pub(crate) fn get() -> Option<Arc<Check>> {
    // A thread that ends may still log.
    AT_HAND.try_with(|at_hand| at_hand.borrow().clone()).ok()?
}
