//! What all handles of a plugin and its supervisor share.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use admission_proto::Pin;
use futures_util::task::AtomicWaker;
use tokio::sync::watch;

use super::checks::Checks;
use super::promise::Promise;
use super::state::{PluginState, State};
use super::{PluginOptions, Services, Strays, supervisor};
use crate::error::{CheckError, PluginError};
use crate::transport::{Exit, Launcher};

/// Checks that may be undecided at once; a further one is settled at once.
const MAX_UNDECIDED: usize = 1_000_000;

/// Longest time between asking a plugin to finish and killing it: the reference's.
pub(crate) const MAX_GRACE: Duration = Duration::from_secs(5);

/// The state of one plugin. Every lock of it is short, and none is held while waiting.
pub(crate) struct Core {
    pub(super) name: Arc<str>,
    pub(super) options: PluginOptions,
    pub(super) launcher: Box<dyn Launcher>,
    /// What the host does for all its plugins.
    pub(super) services: Arc<Services>,
    shared: Mutex<Shared>,
    /// Wakes the supervisor when there is something new in `shared`.
    pub(super) supervisor: AtomicWaker,
    /// How the plugin ended, once nothing of it is left.
    exit: watch::Sender<Option<Exit>>,
    pub(super) stray_verdicts: AtomicU64,
    pub(super) unknown_frames: AtomicU64,
}

pub(super) struct Shared {
    pub(super) state: State,
    pub(super) checks: Checks,
    /// Set when somebody wants the plugin closed: when it is to be killed.
    pub(super) kill_at: Option<Instant>,
}

impl Core {
    pub(crate) fn new(
        name: Arc<str>,
        launcher: Box<dyn Launcher>,
        options: PluginOptions,
        services: Arc<Services>,
    ) -> Self {
        Self {
            name,
            options,
            launcher,
            services,
            shared: Mutex::new(Shared {
                state: State::Idle,
                checks: Checks::default(),
                kill_at: None,
            }),
            supervisor: AtomicWaker::new(),
            exit: watch::Sender::new(None),
            stray_verdicts: AtomicU64::new(0),
            unknown_frames: AtomicU64::new(0),
        }
    }

    pub(super) fn check(self: &Arc<Self>, pin: &Pin) -> Promise {
        let mut shared = self.lock();
        if let Some(promise) = shared.checks.get(pin) {
            return promise.clone();
        }
        if let Some(error) = shared.state.refusal(&self.name) {
            return Promise::settled(Err(error));
        }
        let pending = shared.checks.undecided();
        if pending >= MAX_UNDECIDED {
            return Promise::settled(Err(CheckError::Overloaded {
                plugin: Arc::clone(&self.name),
                pending,
            }));
        }
        let now = Instant::now();
        let promise = shared
            .checks
            .ask(pin.clone(), rand::random(), now, &self.name);
        let first = shared.state.launch();
        drop(shared);
        if first {
            self.start();
        } else {
            self.supervisor.wake();
        }
        promise
    }

    pub(super) fn clear_cache(&self) {
        self.lock().checks.clear();
    }

    /// Asks for the end, at once; the future only waits for it.
    pub(crate) fn close(&self, grace: Duration) -> impl Future<Output = Exit> + Send + use<> {
        let kill_at = Instant::now() + grace.min(MAX_GRACE);
        let mut shared = self.lock();
        let idle = matches!(shared.state, State::Idle);
        // From here a new check is settled at once, so nothing slips in.
        shared.state.close();
        let undecided = shared.checks.take_undecided();
        shared.kill_at = Some(
            shared
                .kill_at
                .map_or(kill_at, |earlier| earlier.min(kill_at)),
        );
        drop(shared);
        // Waiters wake now, not after the grace.
        drop(undecided);
        if idle {
            self.publish(Exit::NeverStarted);
        }
        self.supervisor.wake();
        self.ended()
    }

    /// Waits until nothing of the plugin is left.
    fn ended(&self) -> impl Future<Output = Exit> + Send + use<> {
        let mut exit = self.exit.subscribe();
        async move {
            let exit = exit.wait_for(Option::is_some).await;
            match exit.as_deref() {
                Ok(Some(exit)) => exit.clone(),
                // The supervisor publishes before it lets go of the core.
                Ok(None) | Err(_) => unreachable!("a plugin ends before its core does"),
            }
        }
    }

    /// Ends the life with an error, which is what undecided and later checks get.
    /// Returns whether the life had not ended before.
    pub(super) fn fail(&self, error: &PluginError) -> bool {
        let mut shared = self.lock();
        let first = shared.state.fail(error);
        let undecided = if first {
            shared.checks.take_undecided()
        } else {
            Vec::new()
        };
        drop(shared);
        for resolver in undecided {
            resolver.resolve(Err(CheckError::Plugin(error.clone())));
        }
        first
    }

    /// Says how the plugin ended. The first to say so is believed.
    pub(super) fn publish(&self, exit: Exit) {
        self.exit.send_if_modified(|published| {
            let first = published.is_none();
            published.get_or_insert(exit);
            first
        });
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn state(&self) -> PluginState {
        self.lock().state.public()
    }

    pub(super) fn strays(&self) -> Strays {
        Strays {
            verdicts: self.stray_verdicts.load(Ordering::Relaxed),
            unknown_frames: self.unknown_frames.load(Ordering::Relaxed),
        }
    }

    /// No code that can panic runs under the lock, so a poisoned one is a whole one.
    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>) {
        let supervised = supervisor::Supervised::new(Arc::clone(self));
        // Its end is known by what it publishes, even when the runtime drops it.
        self.services.runtime.spawn(supervised.run());
    }
}
