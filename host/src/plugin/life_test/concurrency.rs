//! The life of a plugin under real threads, and under wakers and destructors that call it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use admission_proto::Pin;
use futures_util::FutureExt as _;

use crate::error::testing::plugin_error;
use crate::plugin::PluginState;
use crate::plugin::check_cache::{CheckId, Origin, Stamp};
use crate::plugin::life::{Asked, Life, Order};
use crate::plugin::promise::Promise;
use crate::repository::{ListMetadata, MetadataFuture, Repository};

/// Rounds of threads: about a second.
const ROUNDS: usize = 2_000;

/// A call that takes longer is a deadlock.
const DEADLOCK: Duration = Duration::from_secs(30);

fn pin(package: &str) -> Pin {
    Pin::new(package, &"a".repeat(40)).expect("a valid pin")
}

fn stamp() -> Stamp {
    Stamp {
        nonce: 7,
        asked: Instant::now(),
    }
}

/// What the threads of a round have seen.
#[derive(Default)]
struct Seen {
    launches: AtomicUsize,
    admitted: AtomicUsize,
    promises: Mutex<Vec<Promise>>,
    sent: Mutex<HashMap<Pin, usize>>,
}

impl Seen {
    /// Checks the same pins as the other callers.
    fn call(&self, life: &Life, pins: &[Pin], clears: bool) {
        for pin in pins {
            let Asked { promise, launches } = life.check(pin, None, stamp);
            self.launches.fetch_add(launches.into(), Ordering::Relaxed);
            self.promises.lock().expect("no panic").push(promise);
            if clears {
                life.clear();
            }
        }
    }

    /// Admits what it is to send, twice, until it is to end.
    fn supervise(&self, life: &Life) {
        loop {
            match life.next_order(2) {
                Order::Close => return,
                Order::Wait => thread::yield_now(),
                Order::Send(id, question) => {
                    let mut sent = self.sent.lock().expect("no panic");
                    *sent.entry(question.pin).or_default() += 1;
                    if let Some(check) = life.take(id, None) {
                        self.admitted.fetch_add(1, Ordering::Relaxed);
                        check.resolver.resolve(Ok(()));
                    }
                    assert!(life.take(id, None).is_none());
                }
            }
        }
    }
}

#[test]
fn threads_agree_on_what_was_launched_sent_and_admitted() {
    let pins: Vec<_> = (0..20).map(|n| pin(&n.to_string())).collect();
    for round in 0..ROUNDS {
        let clears = round % 2 == 0;
        let (life, seen) = (Life::new("policy".into(), 100), Seen::default());
        let start = Barrier::new(4);
        let before = thread::scope(|scope| {
            for clears in [clears, false] {
                let (life, seen, start, pins) = (&life, &seen, &start, &pins);
                scope.spawn(move || {
                    start.wait();
                    seen.call(life, pins, clears);
                });
            }
            scope.spawn(|| {
                start.wait();
                seen.supervise(&life);
            });
            start.wait();
            // From at once to a few microseconds later.
            for _ in 0..(round % 200) * 10 {
                std::hint::spin_loop();
            }
            let (before, pending) = life.close(Instant::now());
            drop(pending);
            before
        });
        let launches = seen.launches.into_inner() + usize::from(before == PluginState::Idle);
        assert_eq!(
            launches, 1,
            "it was launched once, or idle when it was closed"
        );
        let mut promises: Vec<Promise> = Vec::new();
        for promise in seen.promises.into_inner().expect("no panic") {
            assert!(promise.is_settled());
            if !promises.iter().any(|other| other.same_as(&promise)) {
                promises.push(promise);
            }
        }
        let outcomes = promises.iter().map(|promise| promise.wait().now_or_never());
        let admitted = outcomes.filter(|outcome| matches!(outcome, Some(Ok(()))));
        assert_eq!(admitted.count(), seen.admitted.into_inner());
        let sent = seen.sent.into_inner().expect("no panic");
        assert!(clears || sent.values().all(|&count| count == 1), "{sent:?}");
    }
}

/// Ends of a check in flight.
const ENDS: [fn(&Life, CheckId); 4] = [
    |life, _| drop(life.close(Instant::now())),
    |life, _| assert!(life.fail(&plugin_error("crash"), Instant::now())),
    |life, id| drop(life.take(id, None)),
    |life, _| drop(life.take_expired(Instant::now())),
];

#[test]
fn a_waker_may_check_again() {
    for end in ENDS {
        without_deadlock(move || {
            let life = Arc::new(Life::new("policy".into(), 8));
            let promise = life.check(&pin("a"), None, stamp).promise;
            let mut wait = promise.wait().boxed();
            let waker = Waker::from(Arc::new(ChecksAgain(Arc::clone(&life))));
            assert!(
                wait.poll_unpin(&mut Context::from_waker(&waker))
                    .is_pending()
            );
            end(&life, send(&life));
            assert!(promise.is_settled());
        });
    }
}

#[test]
fn a_repository_that_is_dropped_may_check_again() {
    for end in ENDS {
        without_deadlock(move || {
            let life = Arc::new(Life::new("policy".into(), 8));
            let origin = Arc::new(Origin {
                service_url: "https://other.example.com".into(),
                repository: Arc::new(ChecksAgain(Arc::clone(&life))),
            });
            let promise = life.check(&pin("a"), Some(&origin), stamp).promise;
            drop(origin);
            end(&life, send(&life));
            assert!(promise.is_settled());
            assert_eq!(Arc::strong_count(&life), 1, "the repository was dropped");
        });
    }
}

#[test]
fn a_new_check_wakes_the_supervisor_unless_another_waits_to_be_sent() {
    let life = Life::new("policy".into(), 8);
    let wakes = Arc::new(Wakes::default());
    let check = |package| {
        life.register(&Waker::from(Arc::clone(&wakes)));
        life.check(&pin(package), None, stamp);
        wakes.0.load(Ordering::Relaxed)
    };
    assert_eq!(["a", "a", "b"].map(check), [1, 1, 1]);
    for _ in ["a", "b"] {
        assert!(matches!(life.next_order(8), Order::Send(..)));
    }
    assert_eq!(["c", "d"].map(check), [2, 2]);
}

#[test]
fn a_failure_wakes_the_supervisor() {
    let life = Life::new("policy".into(), 8);
    let wakes = Arc::new(Wakes::default());
    for expected in [1, 1] {
        life.register(&Waker::from(Arc::clone(&wakes)));
        life.fail(&plugin_error("crash"), Instant::now());
        assert_eq!(wakes.0.load(Ordering::Relaxed), expected);
    }
}

fn send(life: &Life) -> CheckId {
    let Order::Send(id, _) = life.next_order(1) else {
        panic!("there is a check to send");
    };
    id
}

fn without_deadlock(action: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::sync_channel(1);
    let thread = thread::spawn(move || {
        action();
        done.send(()).expect("the test waits");
    });
    if finished.recv_timeout(DEADLOCK) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("it deadlocks");
    }
    thread.join().expect("no panic");
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Checks another pin when it is woken or dropped.
struct ChecksAgain(Arc<Life>);

impl Wake for ChecksAgain {
    fn wake(self: Arc<Self>) {
        self.0.check(&pin("b"), None, stamp);
    }
}

impl Drop for ChecksAgain {
    fn drop(&mut self) {
        self.0.check(&pin("c"), None, stamp);
    }
}

impl Repository for ChecksAgain {
    fn list_metadata(&self, _: ListMetadata) -> MetadataFuture<'_> {
        Box::pin(std::future::pending())
    }
}
