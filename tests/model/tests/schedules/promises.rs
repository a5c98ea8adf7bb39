//! Promises: settled once, and nobody who waits is forgotten.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use futures_util::FutureExt as _;
use loom::thread;

use crate::explore::{block_on, explore, join};
use crate::plugin::promise::{Promise, Resolver};
use crate::scene::{aborted, waiter};

fn promise() -> (Promise, Resolver) {
    Promise::new("policy".into())
}

#[test]
fn every_waiter_learns_of_the_verdict() {
    let answers = explore(|| {
        let (promise, resolver) = promise();
        let waiters = [waiter(&promise), waiter(&promise)];
        resolver.resolve(Ok(()));
        waiters.map(join)
    });
    assert_eq!(answers, [[Ok(()), Ok(())]].into());
}

#[test]
fn every_waiter_learns_that_nobody_will_answer() {
    let answers = explore(|| {
        let (promise, resolver) = promise();
        let waiters = [waiter(&promise), waiter(&promise)];
        drop(resolver);
        waiters.map(join)
    });
    assert_eq!(answers, [[aborted(), aborted()]].into());
}

#[test]
fn a_waiter_that_gives_up_takes_nothing_from_another() {
    let answers = explore(|| {
        let (promise, resolver) = promise();
        let patient = waiter(&promise);
        let wait = promise.wait();
        let impatient = thread::spawn(move || wait.now_or_never());
        resolver.resolve(Ok(()));
        (join(impatient), join(patient))
    });
    assert_eq!(answers, [(None, Ok(())), (Some(Ok(())), Ok(()))].into());
}

#[test]
fn a_waiter_that_moves_to_another_thread_is_woken_there() {
    let answers = explore(|| {
        let (promise, resolver) = promise();
        let mut wait = promise.wait();
        let settler = thread::spawn(move || resolver.resolve(Ok(())));
        let here = (&mut wait).now_or_never();
        let there = match here.clone() {
            Some(outcome) => outcome,
            None => join(thread::spawn(move || block_on(wait))),
        };
        join(settler);
        (here, there)
    });
    assert_eq!(answers, [(None, Ok(())), (Some(Ok(())), Ok(()))].into());
}

#[test]
fn what_is_seen_to_be_settled_stays_as_it_is() {
    let answers = explore(|| {
        let (promise, resolver) = promise();
        let watcher = thread::spawn({
            let promise = promise.clone();
            move || {
                let first = promise.is_settled().then(|| promise.wait().now_or_never());
                (first, block_on(promise.wait()))
            }
        });
        resolver.resolve(Ok(()));
        join(watcher)
    });
    assert_eq!(
        answers,
        [(None, Ok(())), (Some(Some(Ok(()))), Ok(()))].into()
    );
}

#[test]
fn whoever_is_woken_may_look_at_the_promise() {
    let answers = explore(|| {
        let (promise, resolver) = promise();
        let looks = Waker::from(Arc::new(Looks(promise.clone())));
        let mut wait = promise.wait();
        let mut cx = Context::from_waker(&looks);
        let polled = wait.poll_unpin(&mut cx);
        let settler = thread::spawn(move || resolver.resolve(Ok(())));
        // With the first poll of this, the waiter lets go of the other waker.
        let outcome = block_on(wait);
        join(settler);
        (polled.is_pending(), outcome)
    });
    assert_eq!(answers, [(true, Ok(()))].into());
}

/// Looks at the promise when it is woken and when it is let go.
struct Looks(Promise);

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        assert!(self.0.is_settled());
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        let _ = self.0.is_settled();
    }
}
