//! Stands in for `futures_util`'s waker slot, which has locks of its own making.

use std::task::Waker;

use loom::sync::Mutex;

/// Keeps the one waker that was registered last, until it is woken.
pub(crate) struct AtomicWaker(Mutex<Option<Waker>>);

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn register(&self, waker: &Waker) {
        let replaced = self.slot().replace(waker.clone());
        drop(replaced);
    }

    pub(crate) fn wake(&self) {
        let waker = self.slot().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn slot(&self) -> loom::sync::MutexGuard<'_, Option<Waker>> {
        self.0.lock().expect("nothing panics under this lock")
    }
}
