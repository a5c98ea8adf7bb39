//! A promise: awaited by many, settled once.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::error::CheckError;
use crate::sync::{Mutex, MutexGuard};

/// What a check ended with: `Ok` is an admission, and nothing else is.
pub(crate) type Outcome = Result<(), CheckError>;

/// The pending or finished result of an admission check.
///
/// Cheap to clone, and keeps nothing alive: neither the plugin nor its host. Once
/// settled, it always answers.
#[derive(Clone)]
pub struct Promise(Arc<Shared>);

/// The other end of a [`Promise`]: settles it, once. Dropped unused, it settles the
/// promise as aborted, so that no waiter hangs.
pub(crate) struct Resolver {
    /// Taken when the promise is settled.
    shared: Option<Arc<Shared>>,
    plugin: Arc<str>,
}

struct Shared(Mutex<State>);

enum State {
    Pending(Slab<Waker>),
    Settled(Outcome),
}

impl Promise {
    /// Creates a promise that is settled by the resolver, of a check by `plugin`.
    pub(crate) fn new(plugin: Arc<str>) -> (Self, Resolver) {
        let shared = Arc::new(Shared(Mutex::new(State::Pending(Slab::new()))));
        let resolver = Resolver {
            shared: Some(Arc::clone(&shared)),
            plugin,
        };
        (Self(shared), resolver)
    }

    /// Creates a promise that is settled already.
    pub(crate) fn settled(outcome: Outcome) -> Self {
        Self(Arc::new(Shared(Mutex::new(State::Settled(outcome)))))
    }

    /// Waits until the check is settled; `Ok` means that the pin is admitted.
    ///
    /// May be called any number of times, by any number of waiters, on any runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing for the check or for other waiters.
    ///
    /// # Errors
    ///
    /// [`CheckError`] if the pin was denied or could not be judged.
    pub fn wait(&self) -> Wait {
        Wait {
            shared: Arc::clone(&self.0),
            key: None,
        }
    }

    /// Tells whether the check has ended.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(*self.0.lock(), State::Settled(_))
    }

    /// Tells whether both are the promise of one and the same check.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0.lock() {
            State::Pending(_) => f.write_str("Promise(pending)"),
            State::Settled(outcome) => write!(f, "Promise({outcome:?})"),
        }
    }
}

impl Resolver {
    /// Settles the promise and wakes its waiters. Call it with no lock held.
    pub(crate) fn resolve(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        let before = std::mem::replace(&mut *shared.lock(), State::Settled(outcome));
        if let State::Pending(waiters) = before {
            waiters.into_iter().for_each(|(_, waker)| waker.wake());
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let plugin = Arc::clone(&self.plugin);
        self.settle(Err(CheckError::Aborted { plugin }));
    }
}

/// The future of [`Promise::wait`].
#[must_use = "a check is admitted only if waiting for it says so"]
pub struct Wait {
    shared: Arc<Shared>,
    /// Where the waker stands while the promise is pending.
    key: Option<usize>,
}

impl Future for Wait {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = &mut *self;
        let mut state = this.shared.lock();
        let waiters = match &mut *state {
            State::Pending(waiters) => waiters,
            State::Settled(outcome) => {
                this.key = None;
                return Poll::Ready(outcome.clone());
            }
        };
        let waker = cx.waker();
        let replaced = match this.key {
            Some(key) if waiters[key].will_wake(waker) => None,
            Some(key) => Some(std::mem::replace(&mut waiters[key], waker.clone())),
            None => {
                this.key = Some(waiters.insert(waker.clone()));
                None
            }
        };
        drop(state);
        // With it a task may go, and with the task another wait for this promise.
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(key) = self.key else {
            return;
        };
        let waker = match &mut *self.shared.lock() {
            State::Pending(waiters) => Some(waiters.remove(key)),
            State::Settled(_) => None,
        };
        // Not under the lock, for the reason above.
        drop(waker);
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").finish_non_exhaustive()
    }
}

impl Shared {
    /// No panic can happen while it is locked, so a poisoned lock is a whole one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(admission_model)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;

    fn promise() -> (Promise, Resolver) {
        Promise::new("policy".into())
    }

    #[test]
    fn every_waiter_gets_the_one_outcome() {
        let (promise, resolver) = promise();
        let (mut first, second) = (promise.wait(), promise.wait());
        assert!((&mut first).now_or_never().is_none());
        assert!(!promise.is_settled());
        resolver.resolve(Ok(()));
        assert!(promise.is_settled());
        assert!(matches!(first.now_or_never(), Some(Ok(()))));
        assert!(matches!(second.now_or_never(), Some(Ok(()))));
        assert!(matches!(promise.wait().now_or_never(), Some(Ok(()))));
    }

    #[test]
    fn a_resolver_that_is_dropped_aborts() {
        let (promise, resolver) = promise();
        drop(resolver);
        let error = promise
            .wait()
            .now_or_never()
            .expect("settled")
            .expect_err("aborted");
        assert_eq!(error.to_string(), "the admission plugin is terminating");
        assert_eq!(error.plugin(), "policy");
    }

    #[test]
    fn waiters_that_give_up_leave_nothing_behind() {
        let (promise, _resolver) = promise();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..10_000 {
            assert!(Pin::new(&mut promise.wait()).poll(&mut cx).is_pending());
        }
        let State::Pending(waiters) = &*promise.0.lock() else {
            panic!("still pending");
        };
        assert!(waiters.is_empty());
    }

    #[test]
    fn a_waiter_that_moved_to_another_task_is_woken_there() {
        let (promise, resolver) = promise();
        let mut wait = promise.wait();
        let first = Waker::noop();
        assert!(
            wait.poll_unpin(&mut Context::from_waker(first))
                .is_pending()
        );
        let (task, woken) = counting_waker();
        assert!(
            wait.poll_unpin(&mut Context::from_waker(&task))
                .is_pending()
        );
        resolver.resolve(Ok(()));
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_waker_is_let_go_with_no_lock_held() {
        let (promise, _resolver) = promise();
        let locked = Arc::new(AtomicUsize::new(0));
        let waker = || {
            let (promise, locked) = (promise.clone(), Arc::clone(&locked));
            Waker::from(Arc::new(TriesTheLock { promise, locked }))
        };
        let (first, second) = (waker(), waker());
        let mut wait = promise.wait();
        assert!(
            wait.poll_unpin(&mut Context::from_waker(&first))
                .is_pending()
        );
        drop(first);
        assert!(
            wait.poll_unpin(&mut Context::from_waker(&second))
                .is_pending()
        );
        drop(second);
        drop(wait);
        assert_eq!(Arc::strong_count(&locked), 1, "both are gone");
        assert_eq!(locked.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn only_clones_are_the_same_promise() {
        let (one, _one) = promise();
        let (two, _two) = promise();
        assert!(one.same_as(&one.clone()));
        assert!(!one.same_as(&two));
    }

    /// Counts, when it is dropped, whether the promise was locked.
    struct TriesTheLock {
        promise: Promise,
        locked: Arc<AtomicUsize>,
    }

    impl std::task::Wake for TriesTheLock {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for TriesTheLock {
        fn drop(&mut self) {
            let Promise(shared) = &self.promise;
            let locked = usize::from(shared.0.try_lock().is_err());
            self.locked.fetch_add(locked, Ordering::SeqCst);
        }
    }

    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counting_waker() -> (Waker, Arc<Count>) {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        (Waker::from(Arc::clone(&count)), count)
    }
}
