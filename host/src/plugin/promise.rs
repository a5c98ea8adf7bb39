//! A promise: the outcome of one check, settled once, with any number of waiters.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::SetOnce;

use crate::error::CheckError;

/// The outcome of a check. Only `Ok` admits the pin.
pub(crate) type Outcome = Result<(), CheckError>;

/// A handle to the outcome of a check.
///
/// Cheap to clone. Keeps neither the plugin nor its host alive. The outcome stays available as
/// long as the promise exists. Awaiting it is the same as awaiting [`wait`](Self::wait).
#[derive(Clone)]
pub struct Promise(Arc<SetOnce<Outcome>>);

/// Settles a [`Promise`], once. Dropping it unused settles the promise as aborted, so that no
/// waiter hangs.
pub(crate) struct Resolver {
    promise: Promise,
    plugin: Arc<str>,
}

impl Promise {
    /// Creates the promise of a check by `plugin`, and its resolver.
    pub(crate) fn new(plugin: Arc<str>) -> (Self, Resolver) {
        let promise = Self(Arc::new(SetOnce::new()));
        let resolver = Resolver {
            promise: promise.clone(),
            plugin,
        };
        (promise, resolver)
    }

    /// Creates a promise that is settled already.
    pub(crate) fn settled(outcome: Outcome) -> Self {
        Self(Arc::new(SetOnce::new_with(Some(outcome))))
    }

    /// Waits until the check is settled; `Ok` means that the pin is admitted.
    ///
    /// Can be called any number of times, by any number of waiters, on any runtime. The
    /// future does not borrow the promise.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future affects neither the check nor other waiters.
    ///
    /// # Errors
    ///
    /// [`CheckError`] if the pin was denied or could not be judged.
    #[must_use = "a check is admitted only if waiting for it returns `Ok`"]
    pub fn wait(&self) -> impl Future<Output = Result<(), CheckError>> + Send + use<> {
        let promise = self.clone();
        async move { promise.0.wait().await.clone() }
    }

    /// Returns whether the check is settled.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.0.initialized()
    }

    /// Returns whether both promises belong to the same check.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl IntoFuture for Promise {
    type Output = Result<(), CheckError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get() {
            None => f.write_str("Promise(pending)"),
            Some(outcome) => write!(f, "Promise({outcome:?})"),
        }
    }
}

impl Resolver {
    /// Settles the promise and wakes its waiters. Call it with no lock held: a waker may
    /// run code that takes the lock.
    pub(crate) fn resolve(self, outcome: Outcome) {
        // Only this resolver settles the promise.
        let _first = self.promise.0.set(outcome);
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        if !self.promise.is_settled() {
            let error = CheckError::aborted(Arc::clone(&self.plugin));
            let _first = self.promise.0.set(Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use futures_util::FutureExt as _;

    fn promise() -> (Promise, Resolver) {
        Promise::new("policy".into())
    }

    #[test]
    fn every_waiter_gets_the_one_outcome() {
        let (promise, resolver) = promise();
        let (mut first, second) = (promise.wait().boxed(), promise.wait());
        assert!((&mut first).now_or_never().is_none());
        assert!(!promise.is_settled());
        resolver.resolve(Ok(()));
        assert!(promise.is_settled());
        assert!(matches!(first.now_or_never(), Some(Ok(()))));
        assert!(matches!(second.now_or_never(), Some(Ok(()))));
        assert!(matches!(promise.into_future().now_or_never(), Some(Ok(()))));
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
    fn a_waiter_that_moved_to_another_task_is_woken_there() {
        let (promise, resolver) = promise();
        let mut wait = promise.wait().boxed();
        let mut first = Context::from_waker(Waker::noop());
        assert!(wait.poll_unpin(&mut first).is_pending());
        let wakes = Arc::new(Count::default());
        let second = Waker::from(Arc::clone(&wakes));
        let mut second = Context::from_waker(&second);
        assert!(wait.poll_unpin(&mut second).is_pending());
        resolver.resolve(Ok(()));
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn only_clones_are_the_same_promise() {
        let (one, _one) = promise();
        let (two, _two) = promise();
        assert!(one.same_as(&one.clone()));
        assert!(!one.same_as(&two));
    }

    #[test]
    fn a_promise_is_send_and_sync() {
        fn assert_send_sync<T: Send + Sync>() {}
        assert_send_sync::<Promise>();
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}
