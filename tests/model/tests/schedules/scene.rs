//! Who takes part: handles that ask, waiters, and a supervisor.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use admission_proto::Pin;
use loom::thread::{self, JoinHandle};

use crate::error::{CheckError, PluginError};
use crate::explore::block_on;
use crate::plugin::checks::CheckId;
use crate::plugin::life::{Asked, Life, Order, Stamp};
use crate::plugin::origin::Origin;
use crate::plugin::promise::{Outcome, Promise};
use crate::repository::Repository;

/// Checks that may be out at once.
pub(crate) const WINDOW: usize = 8;

/// Checks that may be undecided at once.
const MAX_UNDECIDED: usize = 8;

pub(crate) fn life() -> Arc<Life> {
    Arc::new(Life::new("policy".into(), MAX_UNDECIDED))
}

/// A time, in seconds after some other.
pub(crate) fn at(second: u64) -> Instant {
    thread_local! {
        static EPOCH: Instant = Instant::now();
    }
    EPOCH.with(|epoch| *epoch + Duration::from_secs(second))
}

pub(crate) fn ask(life: &Life, package: &str) -> Asked {
    life.check(&pin(package), stamp)
}

/// Asks anew, with a repository for this check alone.
pub(crate) fn ask_anew(life: &Life, package: &str, repository: impl Repository + 'static) -> Asked {
    let origin = Arc::new(Origin {
        service_url: "https://other.example.com".to_owned(),
        repository: Arc::new(repository),
    });
    life.check_uncached(&pin(package), &origin, stamp)
}

fn pin(package: &str) -> Pin {
    Pin::new(package, &"a".repeat(40)).expect("a valid pin")
}

fn stamp() -> Stamp {
    Stamp {
        nonce: 7,
        asked: at(0),
    }
}

/// Starts a thread that asks and waits, and returns what it learns and whether it was the
/// one to launch the plugin.
pub(crate) fn asker(life: &Arc<Life>, package: &'static str) -> JoinHandle<(Outcome, bool)> {
    let life = Arc::clone(life);
    thread::spawn(move || {
        let Asked { promise, launches } = ask(&life, package);
        drop(life);
        (block_on(promise.wait()), launches)
    })
}

/// Starts a thread that waits for `promise`, and returns what it learns.
pub(crate) fn waiter(promise: &Promise) -> JoinHandle<Outcome> {
    let wait = promise.wait();
    thread::spawn(move || block_on(wait))
}

/// Asks, and has the check sent.
pub(crate) fn sent(life: &Life, package: &str) -> (Promise, CheckId) {
    send(life, ask(life, package))
}

/// Asks anew, with a repository for this check alone, and has the check sent.
pub(crate) fn sent_anew(
    life: &Life,
    package: &str,
    repository: impl Repository + 'static,
) -> (Promise, CheckId) {
    send(life, ask_anew(life, package, repository))
}

fn send(life: &Life, asked: Asked) -> (Promise, CheckId) {
    let Asked { promise, .. } = asked;
    let Order::Send(id, _) = life.next_order(WINDOW) else {
        panic!("there is a check to send");
    };
    (promise, id)
}

/// Starts the plugin's supervisor, which admits what it is to send until it is to end, and
/// returns how many it has sent.
pub(crate) fn supervisor(life: &Arc<Life>) -> JoinHandle<usize> {
    let life = Arc::clone(life);
    thread::spawn(move || {
        let mut sent = 0;
        block_on(poll_fn(|cx| {
            life.register(cx.waker());
            loop {
                match life.next_order(WINDOW) {
                    Order::End { .. } => return Poll::Ready(()),
                    Order::Wait { .. } => return Poll::Pending,
                    Order::Send(id, _) => {
                        sent += 1;
                        admit(&life, id);
                    }
                }
            }
        }));
        sent
    })
}

/// Delivers a verdict; returns whether it decided the check.
pub(crate) fn admit(life: &Life, id: CheckId) -> bool {
    let decided = life.decide(Some(id));
    decided.map(|check| check.resolver.resolve(Ok(()))).is_ok()
}

pub(crate) fn aborted() -> Outcome {
    let plugin = "policy".into();
    Err(CheckError::Aborted { plugin })
}

pub(crate) fn failed(error: &PluginError) -> Outcome {
    Err(CheckError::Plugin(error.clone()))
}
