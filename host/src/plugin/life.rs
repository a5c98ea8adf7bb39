//! The life of a plugin as its handles and its supervisor share it: its stage, its checks
//! and the wish for its end, behind one lock.
//!
//! Every method locks once and briefly, and settles and wakes after that, because whoever
//! is woken may ask again at once. No task and no clock: callers say what time it is.

use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::Instant;

use admission_proto::Pin;

use super::checks::{CheckId, Checks, Question, Taken};
use super::origin::Origin;
use super::promise::Promise;
use super::state::{PluginState, State};
use crate::error::{CheckError, PluginError};
use crate::sync::{AtomicWaker, Mutex, MutexGuard};

/// The life of one plugin.
pub(crate) struct Life {
    plugin: Arc<str>,
    /// Checks that may be undecided at once; a further one is settled at once.
    max_undecided: usize,
    shared: Mutex<Shared>,
    /// Wakes the supervisor when there is a new order.
    supervisor: AtomicWaker,
}

struct Shared {
    state: State,
    checks: Checks,
    /// Set when somebody wants the plugin closed: when it is to be killed.
    kill_at: Option<Instant>,
    /// Verdicts that decided nothing.
    strays: u64,
}

/// What distinguishes a check from every other of the same pin.
pub(crate) struct Stamp {
    /// Makes its ID unguessable.
    pub(crate) nonce: u128,
    pub(crate) asked: Instant,
}

/// What asking has led to.
pub(crate) struct Asked {
    pub(crate) promise: Promise,
    /// Whether the plugin is to be launched for it: true once in a life.
    pub(crate) launches: bool,
}

/// What the supervisor is to do next.
pub(crate) enum Order {
    /// Ask the plugin to finish, and kill it when it has not.
    End { kill_at: Instant },
    /// Send this check.
    Send(CheckId, Question),
    /// Wait to be woken.
    Wait {
        /// When the check that waits longest was asked.
        oldest: Option<Instant>,
    },
}

/// A verdict that decided nothing.
#[derive(Debug)]
pub(crate) struct Stray {
    /// How many there were before it.
    pub(crate) before: u64,
}

impl Life {
    /// Creates the life of `plugin`, which was not started yet.
    pub(crate) fn new(plugin: Arc<str>, max_undecided: usize) -> Self {
        Self {
            plugin,
            max_undecided,
            shared: Mutex::new(Shared {
                state: State::Idle,
                checks: Checks::default(),
                kill_at: None,
                strays: 0,
            }),
            supervisor: AtomicWaker::new(),
        }
    }

    /// Returns the promise of `pin`: the one that is known, a new one, or while no check
    /// can be taken one that is settled and not kept.
    ///
    /// A new check gets its `stamp` under the lock: so times are in the order of checks.
    pub(crate) fn check(&self, pin: &Pin, stamp: impl FnOnce() -> Stamp) -> Asked {
        let shared = self.lock();
        if let Some(promise) = shared.checks.get(pin) {
            return Asked::without_launch(promise.clone());
        }
        let pin = pin.clone();
        self.ask(shared, Question { pin, origin: None }, stamp)
    }

    /// As [`check`](Self::check), but with an origin of its own, which makes the promise a
    /// new one always, and not kept. Only lent, so that it is not dropped under the lock.
    pub(crate) fn check_uncached(
        &self,
        pin: &Pin,
        origin: &Arc<Origin>,
        stamp: impl FnOnce() -> Stamp,
    ) -> Asked {
        let question = Question {
            pin: pin.clone(),
            origin: Some(Arc::clone(origin)),
        };
        self.ask(self.lock(), question, stamp)
    }

    fn ask(
        &self,
        mut shared: MutexGuard<'_, Shared>,
        question: Question,
        stamp: impl FnOnce() -> Stamp,
    ) -> Asked {
        if let Some(error) = shared.state.refusal(&self.plugin) {
            return Asked::without_launch(Promise::settled(Err(error)));
        }
        let pending = shared.checks.undecided();
        if pending >= self.max_undecided {
            let plugin = Arc::clone(&self.plugin);
            let error = CheckError::Overloaded { plugin, pending };
            return Asked::without_launch(Promise::settled(Err(error)));
        }
        let Stamp { nonce, asked } = stamp();
        let promise = shared.checks.ask(question, nonce, asked, &self.plugin);
        let launches = shared.state.launch();
        drop(shared);
        self.supervisor.wake();
        Asked { promise, launches }
    }

    /// Forgets every promise that is settled.
    pub(crate) fn clear(&self) {
        self.lock().checks.clear();
    }

    /// Aborts what is undecided and asks for the end; of several times to kill at, the
    /// earliest counts. Returns whether there is nothing to end, as nothing was started.
    pub(crate) fn close(&self, kill_at: Instant) -> bool {
        let mut shared = self.lock();
        let idle = matches!(shared.state, State::Idle);
        // From here a new check is settled at once, so nothing slips in.
        shared.state.close();
        let undecided = shared.checks.take_undecided();
        let earliest = shared.kill_at.map_or(kill_at, |other| other.min(kill_at));
        shared.kill_at = Some(earliest);
        drop(shared);
        // Waiters wake now, not after the grace.
        drop(undecided);
        self.supervisor.wake();
        idle
    }

    /// Ends the life with an error, which is what undecided and later checks get.
    /// Returns whether the life had not ended before.
    pub(crate) fn fail(&self, error: &PluginError) -> bool {
        let mut shared = self.lock();
        let first = shared.state.fail(error);
        // A life that has ended has no undecided checks.
        let undecided = shared.checks.take_undecided();
        drop(shared);
        for check in undecided {
            let error = CheckError::Plugin(error.clone());
            check.resolver.resolve(Err(error));
        }
        first
    }

    /// Notes that the plugin has connected; returns whether it was being launched.
    pub(crate) fn connect(&self) -> bool {
        self.lock().state.connect()
    }

    /// Has `waker` woken when there may be a new order. Look for one after that.
    pub(crate) fn register(&self, waker: &Waker) {
        self.supervisor.register(waker);
    }

    /// Returns when the plugin is to be killed, once somebody wants it closed.
    pub(crate) fn kill_at(&self) -> Option<Instant> {
        self.lock().kill_at
    }

    /// Returns what the supervisor is to do, which may have a check sent while fewer than
    /// `window` are out.
    pub(crate) fn next_order(&self, window: usize) -> Order {
        let mut shared = self.lock();
        if let Some(kill_at) = shared.kill_at {
            return Order::End { kill_at };
        }
        match shared.checks.send_next(window) {
            Some((id, question)) => Order::Send(id, question),
            None => Order::Wait {
                oldest: shared.checks.oldest(),
            },
        }
    }

    /// Takes the check that a verdict is to settle.
    ///
    /// # Errors
    ///
    /// If the verdict decides nothing, because no check of this ID was sent or because it
    /// is settled; this is counted. `None` is an ID that no check can have.
    pub(crate) fn decide(&self, id: Option<CheckId>) -> Result<Taken, Stray> {
        let mut shared = self.lock();
        if let Some(check) = id.and_then(|id| shared.checks.decide(id)) {
            return Ok(check);
        }
        let before = shared.strays;
        shared.strays += 1;
        Err(Stray { before })
    }

    /// Tells whether the check was sent and is undecided.
    pub(crate) fn is_out(&self, id: CheckId) -> bool {
        self.lock().checks.is_out(id)
    }

    /// Returns the origin that the check has of its own, if it is out and has one.
    pub(crate) fn origin(&self, id: CheckId) -> Option<Arc<Origin>> {
        self.lock().checks.origin(id).cloned()
    }

    /// Takes every undecided check that was asked at `cutoff` or before.
    pub(crate) fn expire(&self, cutoff: Instant) -> Vec<Taken> {
        self.lock().checks.expire(cutoff)
    }

    pub(crate) fn state(&self) -> PluginState {
        self.lock().state.public()
    }

    /// Returns how many verdicts decided nothing.
    pub(crate) fn strays(&self) -> u64 {
        self.lock().strays
    }

    /// What panics under the lock does so before it changes anything, so a poisoned lock
    /// is a whole one.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    fn without_launch(promise: Promise) -> Self {
        Self {
            promise,
            launches: false,
        }
    }
}
