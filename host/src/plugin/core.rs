//! What all handles of a plugin and its supervisor share.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use admission_proto::Pin;
use tokio::sync::watch;

use super::life::{Asked, Life, Stamp};
use super::origin::Origin;
use super::promise::Promise;
use super::{IgnoredInput, PluginOptions, Services, supervisor};
use crate::transport::{Exit, Launcher};

/// Checks that may be undecided at once; a further one is settled at once.
const MAX_UNDECIDED: usize = 1_000_000;

/// Longest grace of a close: 5 s, as in the reference. A longer one is shortened to this,
/// with a warning in the log.
pub const MAX_GRACE: Duration = Duration::from_secs(5);

/// One plugin: its life, and what it takes to run it.
pub(crate) struct Core {
    pub(super) name: Arc<str>,
    pub(super) options: PluginOptions,
    pub(super) launcher: Box<dyn Launcher>,
    /// What the host does for all its plugins.
    pub(super) services: Arc<Services>,
    pub(super) life: Life,
    /// How the plugin ended, once nothing of it is left.
    exit: watch::Sender<Option<Exit>>,
    pub(super) unknown_frames: AtomicU64,
}

impl Core {
    pub(crate) fn new(
        name: Arc<str>,
        launcher: Box<dyn Launcher>,
        options: PluginOptions,
        services: Arc<Services>,
    ) -> Self {
        Self {
            life: Life::new(Arc::clone(&name), MAX_UNDECIDED),
            name,
            options,
            launcher,
            services,
            exit: watch::Sender::new(None),
            unknown_frames: AtomicU64::new(0),
        }
    }

    pub(super) fn check(self: &Arc<Self>, pin: &Pin) -> Promise {
        self.started(self.life.check(pin, stamp))
    }

    pub(super) fn check_uncached(self: &Arc<Self>, pin: &Pin, origin: Origin) -> Promise {
        self.started(self.life.check_uncached(pin, &Arc::new(origin), stamp))
    }

    /// Starts the plugin if this is the check that it is launched for.
    fn started(self: &Arc<Self>, asked: Asked) -> Promise {
        if asked.launches {
            self.start();
        }
        asked.promise
    }

    /// Starts to close the plugin, which is killed after `grace`.
    pub(crate) fn close(&self, grace: Duration) {
        if grace > MAX_GRACE {
            let plugin = &*self.name;
            tracing::warn!(plugin, ?grace, max = ?MAX_GRACE, "shortened the grace of a close");
        }
        let kill_at = Instant::now() + grace.min(MAX_GRACE);
        if self.life.close(kill_at) {
            self.publish(Exit::NeverStarted);
        }
    }

    /// Waits until nothing of the plugin is left.
    pub(crate) fn ended(&self) -> impl Future<Output = Exit> + Send + use<> {
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

    pub(super) fn strays(&self) -> IgnoredInput {
        IgnoredInput {
            verdicts: self.life.strays(),
            unknown_frames: self.unknown_frames.load(Ordering::Relaxed),
        }
    }

    fn start(self: &Arc<Self>) {
        let supervised = supervisor::Supervised::new(Arc::clone(self));
        // Its end is known by what it publishes, even when the runtime drops it.
        self.services.runtime.spawn(supervised.run());
    }
}

fn stamp() -> Stamp {
    Stamp {
        nonce: rand::random(),
        asked: Instant::now(),
    }
}
