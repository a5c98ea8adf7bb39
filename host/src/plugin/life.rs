//! The life of a plugin, shared by its handles and its supervisor: its state, its checks and
//! its exit, behind one lock.
//!
//! Every method takes the lock once, and only briefly. It settles promises and calls wakers
//! after it has released the lock, because a waiter may request another check at once. No
//! method reads a clock: callers pass the time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use admission_proto::Pin;
use futures_util::task::AtomicWaker;
use tokio::sync::SetOnce;

use super::IgnoredInput;
use super::check_cache::{CheckCache, CheckId, Origin, Question, Stamp, Taken};
use super::promise::Promise;
use crate::error::{CheckError, PluginError};
use crate::transport::Exit;

/// The state of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PluginState {
    /// No check was requested yet, so the plugin was not started.
    Idle,
    /// The plugin is being started, or has not connected yet.
    Launching,
    /// The plugin is connected.
    Running,
    /// The plugin failed. It is killed and reaped, and never started again.
    Broken,
    /// The plugin was closed. It is killed if it exceeds its grace, and reaped.
    Closed,
}

impl PluginState {
    /// Returns whether the plugin is neither broken nor closed.
    fn is_alive(self) -> bool {
        matches!(self, Self::Idle | Self::Launching | Self::Running)
    }
}

/// The life of one plugin.
pub(crate) struct Life {
    plugin: Arc<str>,
    shared: Mutex<Shared>,
    /// Wakes the supervisor when `next_order` may have changed.
    supervisor: AtomicWaker,
    /// Set after the plugin is reaped.
    exit: SetOnce<Exit>,
}

struct Shared {
    state: PluginState,
    checks: CheckCache,
    /// When the plugin is to be killed. Set when it is closed or broken.
    kill_at: Option<Instant>,
    /// When the plugin connected or last settled a check.
    last_active: Option<Instant>,
    ignored: IgnoredInput,
}

/// A requested check.
pub(crate) struct Asked {
    pub(crate) promise: Promise,
    /// Whether this check launches the plugin. True for at most one check of each plugin.
    pub(crate) launches: bool,
}

/// The next action of the supervisor.
pub(crate) enum Order {
    /// End the session, because the plugin is closed or broken.
    Close,
    /// Send this check.
    Send(CheckId, Question),
    /// Wait to be woken.
    Wait,
}

impl Life {
    /// Creates the life of `plugin`, which may have at most `max_pending` pending checks.
    pub(crate) fn new(plugin: Arc<str>, max_pending: usize) -> Self {
        Self {
            shared: Mutex::new(Shared {
                state: PluginState::Idle,
                checks: CheckCache::new(Arc::clone(&plugin), max_pending),
                kill_at: None,
                last_active: None,
                ignored: IgnoredInput::default(),
            }),
            plugin,
            supervisor: AtomicWaker::new(),
            exit: SetOnce::new(),
        }
    }

    /// Checks `pin`, as [`CheckCache::check`] does. `origin` is only borrowed, so that it is
    /// not dropped under the lock.
    pub(crate) fn check(
        &self,
        pin: &Pin,
        origin: Option<&Arc<Origin>>,
        stamp: impl FnOnce() -> Stamp,
    ) -> Asked {
        let mut shared = self.lock();
        let (promise, is_new) = shared.checks.check(pin, origin, stamp);
        let launches = is_new && shared.state == PluginState::Idle;
        if launches {
            shared.state = PluginState::Launching;
        }
        // If others wait too, the supervisor was woken for them or has no room to send.
        let wakes = is_new && shared.checks.one_is_unsent();
        drop(shared);
        if wakes {
            self.supervisor.wake();
        }
        Asked { promise, launches }
    }

    /// Removes every settled promise from the cache.
    pub(crate) fn clear(&self) {
        self.lock().checks.clear();
    }

    /// Records that the plugin has connected. Returns whether it was being launched.
    pub(crate) fn connect(&self, now: Instant) -> bool {
        let mut shared = self.lock();
        let launching = shared.state == PluginState::Launching;
        if launching {
            shared.state = PluginState::Running;
            shared.last_active = Some(now);
        }
        launching
    }

    /// Marks the plugin as broken with `error`, fails its pending checks, and schedules its kill
    /// for `kill_at`.
    ///
    /// Does nothing and returns `false` if the plugin is already broken or closed.
    pub(crate) fn fail(&self, error: &PluginError, kill_at: Instant) -> bool {
        let mut shared = self.lock();
        if !shared.state.is_alive() {
            return false;
        }
        shared.state = PluginState::Broken;
        shared.kill_at = Some(kill_at);
        let pending = shared.checks.refuse(CheckError::Plugin(error.clone()));
        drop(shared);
        for check in pending {
            let error = CheckError::Plugin(error.clone());
            check.resolver.resolve(Err(error));
        }
        self.supervisor.wake();
        true
    }

    /// Marks the plugin as closed, unless it is already broken or closed. Schedules its kill for
    /// `kill_at`, unless an earlier kill is already scheduled.
    ///
    /// Returns the previous state and the checks that were pending. Dropping the checks aborts
    /// them.
    pub(crate) fn close(&self, kill_at: Instant) -> (PluginState, Vec<Taken>) {
        let mut shared = self.lock();
        let before = shared.state;
        let mut pending = Vec::new();
        if before.is_alive() {
            shared.state = PluginState::Closed;
            let error = CheckError::aborted(Arc::clone(&self.plugin));
            pending = shared.checks.refuse(error);
        }
        let earliest = shared.kill_at.map_or(kill_at, |other| other.min(kill_at));
        shared.kill_at = Some(earliest);
        (before, pending)
    }

    /// Sets how the plugin exited. Only the first call has an effect.
    pub(crate) fn publish_exit(&self, exit: Exit) {
        // A supervisor also publishes when it is dropped, which may be the second call.
        let _first = self.exit.set(exit);
    }

    /// Waits until the plugin is reaped, and returns how it exited.
    pub(crate) async fn exit(&self) -> Exit {
        self.exit.wait().await.clone()
    }

    /// Registers `waker` to be woken when `next_order` may have changed. Call `next_order` after
    /// this.
    pub(crate) fn register(&self, waker: &Waker) {
        self.supervisor.register(waker);
    }

    pub(crate) fn wake_supervisor(&self) {
        self.supervisor.wake();
    }

    /// Returns when the plugin is to be killed, if it is closed or broken.
    pub(crate) fn kill_at(&self) -> Option<Instant> {
        self.lock().kill_at
    }

    /// Returns the next action of the supervisor, which may send checks while fewer than
    /// `max_in_flight` are in flight.
    pub(crate) fn next_order(&self, max_in_flight: usize) -> Order {
        let mut shared = self.lock();
        if !shared.state.is_alive() {
            return Order::Close;
        }
        match shared.checks.send_next(max_in_flight) {
            Some((id, question)) => Order::Send(id, question),
            None => Order::Wait,
        }
    }

    /// Returns when the timeout of the oldest pending check starts: when the check was requested
    /// or when the plugin was last active, whichever is later. A plugin that settles other
    /// checks is busy, not stuck. Returns `None` if no check is pending or the plugin has not
    /// connected.
    pub(crate) fn inactive_since(&self) -> Option<Instant> {
        let shared = self.lock();
        Some(shared.checks.oldest()?.max(shared.last_active?))
    }

    /// Removes the check that a verdict settles, if it is in flight, and records `now` as the
    /// plugin's last activity.
    pub(crate) fn take(&self, id: CheckId, now: Option<Instant>) -> Option<Taken> {
        let mut shared = self.lock();
        let taken = shared.checks.take(id)?;
        shared.last_active = now.max(shared.last_active);
        Some(taken)
    }

    /// Removes every pending check that was requested at `cutoff` or before.
    pub(crate) fn take_expired(&self, cutoff: Instant) -> Vec<Taken> {
        self.lock().checks.take_expired(cutoff)
    }

    /// Records a metadata call for a check, like [`CheckCache::register_call`].
    pub(crate) fn register_call(&self, id: CheckId) -> Option<Question> {
        self.lock().checks.register_call(id)
    }

    /// Returns the checks that were settled since the last call of this method, if the plugin
    /// made metadata calls for them.
    pub(crate) fn take_ended_callers(&self) -> Vec<CheckId> {
        self.lock().checks.take_ended_callers()
    }

    /// Counts a verdict that settled no check, and returns the count.
    ///
    /// Counts nothing and returns `None` if the plugin is broken or closed, because all its
    /// verdicts are ignored then.
    pub(crate) fn count_ignored_verdict(&self) -> Option<u64> {
        let mut shared = self.lock();
        if !shared.state.is_alive() {
            return None;
        }
        shared.ignored.verdicts += 1;
        Some(shared.ignored.verdicts)
    }

    /// Counts a frame that only a newer protocol defines.
    pub(crate) fn count_unknown_frame(&self) {
        self.lock().ignored.unknown_frames += 1;
    }

    pub(crate) fn ignored_input(&self) -> IgnoredInput {
        self.lock().ignored
    }

    pub(crate) fn state(&self) -> PluginState {
        self.lock().state
    }

    /// Code under the lock panics only before it changes anything, so the data of a
    /// poisoned lock is valid.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::testing::plugin_error;

    #[test]
    fn a_life_goes_one_way() {
        let life = Life::new("policy".into(), 2);
        let now = Instant::now();
        let launches = |package| {
            let pin = Pin::new(package, &"a".repeat(40)).expect("a valid pin");
            let stamp = || Stamp {
                nonce: 0,
                asked: now,
            };
            life.check(&pin, None, stamp).launches
        };
        assert!(!life.connect(now));
        assert!(launches("a"));
        assert!(!launches("a") && !launches("b"));
        assert!(life.connect(now));
        assert!(!life.connect(now));
        let (before, pending) = life.close(now);
        assert_eq!((before, pending.len()), (PluginState::Running, 2));
        assert!(!launches("c") && !life.connect(now));
        assert_eq!(life.close(now).0, PluginState::Closed);
        assert_eq!(life.state(), PluginState::Closed);
    }

    #[test]
    fn the_first_error_stays() {
        let life = Life::new("policy".into(), 1);
        let now = Instant::now();
        assert!(life.fail(&plugin_error("first"), now));
        assert!(!life.fail(&plugin_error("second"), now));
        assert_eq!(life.close(now).0, PluginState::Broken);
        assert_eq!(life.state(), PluginState::Broken);
        assert!(!life.connect(now));
    }

    #[test]
    fn the_earliest_kill_counts() {
        let life = Life::new("policy".into(), 1);
        let now = Instant::now();
        let at = |second| now + Duration::from_secs(second);
        for (second, expected) in [(2, 2), (3, 2), (1, 1)] {
            life.close(at(second));
            assert_eq!(life.kill_at(), Some(at(expected)));
        }
    }
}
