//! Random sequences of operations on the life of a plugin, compared with a model.
//!
//! The environment variable `PROPTEST_CASES` sets the number of sequences; the default is 256.

mod concurrency;
mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

use admission_proto::{Code, Pin, Status};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proptest_state_machine::{StateMachineTest, prop_state_machine};

use self::model::{
    FAILED_KILL_AT, Id, MAX_PENDING, Model, ModelOutcome, PINS, Phase, Reply, Step, one_of, time_of,
};
use super::PluginState;
use super::check_cache::{CheckId, Origin, Stamp, Taken};
use super::life::{Asked, Life, Order};
use super::promise::{Outcome, Promise};
use super::verdict;
use crate::error::CheckError;
use crate::error::testing::plugin_error;
use crate::repository::MemoryRepository;

prop_state_machine! {
    #[test]
    fn every_step_has_the_result_that_the_model_expects(sequential 1..100 => System);
}

/// A life, and every promise and wait of it.
struct System {
    life: Life,
    plugin: Arc<str>,
    /// The origin of every uncached check.
    origin: Arc<Origin>,
    epoch: Instant,
    /// The promise of every check, in the order of requests.
    promises: Vec<Promise>,
    waiters: Vec<Waiter>,
}

struct Waiter {
    /// `None` after it is cancelled.
    wait: Option<BoxFuture<'static, Outcome>>,
    wakes: Arc<Wakes>,
}

impl StateMachineTest for System {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        let plugin: Arc<str> = "policy".into();
        Self {
            life: Life::new(Arc::clone(&plugin), MAX_PENDING),
            plugin,
            origin: Arc::new(Origin {
                service_url: "https://other.example.com".into(),
                repository: Arc::new(MemoryRepository::new()),
            }),
            epoch: Instant::now(),
            promises: Vec::new(),
            waiters: Vec::new(),
        }
    }

    fn apply(mut system: Self, model: &Model, step: Step) -> Self {
        assert_eq!(system.step(step), model.reply);
        system
    }

    fn check_invariants(system: &Self, model: &Model) {
        assert_eq!(system.life.state(), model.state);
        assert_eq!(system.life.ignored_input().verdicts, model.ignored);
        let kill_at = system.life.kill_at().map(|at| system.seconds(at));
        assert_eq!(kill_at, model.kill_at);
        for (number, check) in model.checks.iter().enumerate() {
            let outcome = outcome_of(&system.promises[number]);
            let (expected, is_in_flight) = match check.phase {
                Phase::Unsent => (None, false),
                Phase::InFlight => (None, true),
                Phase::Settled(outcome) => (Some(outcome), false),
            };
            assert_eq!(outcome, expected);
            let question = system.life.register_call(id_of(number));
            assert_eq!(question.is_some(), is_in_flight);
            let origin = question.and_then(|question| question.origin);
            assert_eq!(origin.is_some(), is_in_flight && check.uncached);
        }
        for (waiter, expected) in system.waiters.iter().zip(&model.waiters) {
            let wakes = waiter.wakes.0.load(Ordering::Relaxed);
            assert_eq!(wakes, u64::from(expected.woken));
        }
    }
}

impl System {
    fn step(&mut self, step: Step) -> Reply {
        match step {
            Step::Check { pin } => self.check(pin, None),
            Step::CheckUncached { pin } => {
                let origin = Arc::clone(&self.origin);
                self.check(pin, Some(&origin))
            }
            Step::Order { max_in_flight } => self.order(max_in_flight),
            Step::Verdict { id, code } => self.verdict(id, code),
            Step::Connect => Reply::Done(self.life.connect(self.epoch)),
            Step::Fail { error } => {
                let error = plugin_error(&error.to_string());
                Reply::Done(self.life.fail(&error, self.at(FAILED_KILL_AT)))
            }
            Step::Close { kill_at } => {
                let (before, pending) = self.life.close(self.at(kill_at));
                drop(pending);
                Reply::Done(before == PluginState::Idle)
            }
            Step::Clear => {
                self.life.clear();
                Reply::Nothing
            }
            Step::Expire { cutoff } => {
                let expired = self.life.take_expired(self.at(cutoff));
                let count = expired.len();
                for check in expired {
                    let plugin = Arc::clone(&self.plugin);
                    let after = Duration::ZERO;
                    check
                        .resolver
                        .resolve(Err(CheckError::TimedOut { plugin, after }));
                }
                Reply::Expired(count)
            }
            Step::Wait { check } => self.wait(check),
            Step::Cancel { waiter } => {
                if let Some(waiter) = one_of(self.waiters.len(), waiter) {
                    self.waiters[waiter].wait = None;
                }
                Reply::Nothing
            }
        }
    }

    fn check(&mut self, pin: usize, origin: Option<&Arc<Origin>>) -> Reply {
        let number = self.promises.len();
        let stamp = || Stamp {
            nonce: nonce_of(number),
            asked: self.at(time_of(number)),
        };
        let asked = self.life.check(&pin_of(pin), origin, stamp);
        let Asked { promise, launches } = asked;
        let known = self
            .promises
            .iter()
            .position(|known| known.same_as(&promise));
        if let Some(check) = known {
            return Reply::Promise { check, launches };
        }
        if let Some(outcome) = outcome_of(&promise) {
            assert!(!launches);
            return Reply::Refused(outcome);
        }
        self.promises.push(promise);
        let check = number;
        Reply::Promise { check, launches }
    }

    fn order(&self, max_in_flight: usize) -> Reply {
        match self.life.next_order(max_in_flight) {
            Order::Close => Reply::Close,
            Order::Send(id, question) => {
                let check = (0..self.promises.len()).find(|&number| id_of(number) == id);
                let pin = (0..PINS).find(|&number| pin_of(number) == question.pin);
                let (check, pin) = check.zip(pin).expect("only requested checks are sent");
                let uncached = question.origin.is_some();
                Reply::Send {
                    check,
                    pin,
                    uncached,
                }
            }
            Order::Wait => Reply::Idle {
                oldest: self.life.inactive_since().map(|since| self.seconds(since)),
            },
        }
    }

    fn verdict(&self, id: Id, code: i32) -> Reply {
        let count = self.promises.len();
        let id = match id {
            Id::Of(check) => one_of(count, check).map(id_of),
            Id::Forged(check) => one_of(count, check).map(|check| encoded(check, !nonce_of(check))),
            Id::Future => Some(id_of(count)),
            Id::Garbled => None,
        };
        match id.and_then(|id| self.life.take(id, None)) {
            Some(Taken { resolver, origin }) => {
                let status = Status::new(Code::from(code), "");
                let cached = origin.is_none();
                resolver.resolve(verdict::outcome(&self.plugin, status, cached));
                Reply::Done(true)
            }
            None => {
                let counted = self.life.count_ignored_verdict();
                assert!(counted.is_none_or(|n| n == self.life.ignored_input().verdicts));
                Reply::Done(false)
            }
        }
    }

    fn wait(&mut self, check: usize) -> Reply {
        let Some(check) = one_of(self.promises.len(), check) else {
            return Reply::Nothing;
        };
        let mut wait = self.promises[check].wait().boxed();
        let wakes = Arc::new(Wakes(AtomicU64::new(0)));
        let waker = Arc::clone(&wakes).into();
        let pending = match wait.poll_unpin(&mut Context::from_waker(&waker)) {
            Poll::Ready(_) => false,
            Poll::Pending => {
                let wait = Some(wait);
                self.waiters.push(Waiter { wait, wakes });
                true
            }
        };
        Reply::Done(pending)
    }

    fn at(&self, second: u64) -> Instant {
        self.epoch + Duration::from_secs(second)
    }

    fn seconds(&self, at: Instant) -> u64 {
        at.duration_since(self.epoch).as_secs()
    }
}

/// Counts how often a waiter is woken.
struct Wakes(AtomicU64);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns the outcome of a promise, if it is settled.
fn outcome_of(promise: &Promise) -> Option<ModelOutcome> {
    let outcome = promise.wait().now_or_never();
    assert_eq!(outcome.is_some(), promise.is_settled());
    outcome.map(|outcome| model_outcome(&outcome))
}

fn model_outcome(outcome: &Outcome) -> ModelOutcome {
    match outcome {
        Ok(()) => ModelOutcome::Verdict(0),
        Err(CheckError::Denied { status, .. } | CheckError::PolicyError { status, .. }) => {
            ModelOutcome::Verdict(status.code.number())
        }
        Err(CheckError::Aborted { .. }) => ModelOutcome::Aborted,
        Err(CheckError::TimedOut { .. }) => ModelOutcome::TimedOut,
        Err(CheckError::Overloaded { pending, .. }) => {
            assert_eq!(*pending, MAX_PENDING);
            ModelOutcome::Overloaded
        }
        Err(CheckError::Plugin(error)) => {
            let number = error.to_string();
            ModelOutcome::Failed(number.parse().expect("the number of an error"))
        }
    }
}

fn pin_of(pin: usize) -> Pin {
    Pin::new(&format!("package{pin}"), &"a".repeat(40)).expect("a valid pin")
}

/// Returns the random part of a check, which differs from those of the others.
fn nonce_of(check: usize) -> u128 {
    u128::MAX / (check as u128 + 3)
}

fn id_of(check: usize) -> CheckId {
    encoded(check, nonce_of(check))
}

fn encoded(check: usize, nonce: u128) -> CheckId {
    let mut bytes = (check as u64).to_be_bytes().to_vec();
    bytes.extend(nonce.to_be_bytes());
    let wire = BASE64_URL_SAFE_NO_PAD.encode(bytes);
    CheckId::from_wire(&wire).expect("the encoding is that of the host")
}
