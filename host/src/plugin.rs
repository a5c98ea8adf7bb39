//! The handle of a plugin, and its options.

mod check_cache;
mod close_and_kill;
mod core;
mod flow_control;
mod launch;
mod life;
#[cfg(test)]
mod life_test;
mod metadata;
mod promise;
mod running;
mod serve;
mod supervisor;
mod timeouts;
mod verdict;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use admission_proto::Pin;

use self::check_cache::{Origin, Stamp};
pub use self::close_and_kill::MAX_GRACE;
pub(crate) use self::close_and_kill::start_close;
pub(crate) use self::core::{Core, Services, Settings};
use self::life::Asked;
pub use self::life::PluginState;
pub use self::promise::Promise;
use crate::repository::Repository;
use crate::transport::Exit;

/// Default of [`PluginOptions::connect_timeout`]: the reference's limit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Default of [`PluginOptions::max_in_flight`].
const MAX_IN_FLIGHT: usize = 16_384;

/// A plugin that judges pins for one host.
///
/// The first check starts it, and it is started at most once. Cheap to clone; dropping the
/// last clone kills it.
#[derive(Clone)]
pub struct Plugin(Arc<Handle>);

/// Kills the plugin when its last user drops it.
struct Handle(Arc<Core>);

/// How a host runs a plugin.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PluginOptions {
    check_timeout: Option<Duration>,
    connect_timeout: Duration,
    max_in_flight: usize,
}

/// How much of a plugin's output was ignored. Both counts are 0 for a correct plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct IgnoredInput {
    /// Verdicts on checks that were never sent, or that were settled before: repeated
    /// verdicts, late ones, and wrong IDs.
    pub verdicts: u64,
    /// Frames that this version of the protocol does not define.
    pub unknown_frames: u64,
}

impl Plugin {
    /// Creates the first handle of a plugin.
    pub(crate) fn from_core(core: Arc<Core>) -> Self {
        Self(Arc::new(Handle(core)))
    }

    /// Asks the plugin whether `pin` may be deployed. Starts the plugin if this is its first
    /// check.
    ///
    /// Never blocks. A pin that was checked before gets the promise of that check, pending
    /// or settled, until [`clear_cache`](Self::clear_cache). Once the plugin is broken or
    /// closed, any other pin gets a promise that is settled with the plugin's error and is not
    /// cached.
    #[must_use]
    pub fn check_admission(&self, pin: &Pin) -> Promise {
        self.check(pin, None)
    }

    /// Asks the plugin whether `pin`, a package of the service at `service_url`, may be
    /// deployed. Neither reads nor fills the cache.
    ///
    /// For a program that forwards checks, each with its own service and metadata. Until the
    /// check is settled, its metadata calls go to `repository` instead of the host's. No other
    /// check gets its promise, and the message of its verdict is not shortened. Otherwise behaves
    /// like [`check_admission`](Self::check_admission).
    #[must_use]
    pub fn check_uncached(
        &self,
        pin: &Pin,
        service_url: impl Into<String>,
        repository: Arc<dyn Repository>,
    ) -> Promise {
        let origin = Arc::new(Origin {
            service_url: service_url.into(),
            repository,
        });
        self.check(pin, Some(&origin))
    }

    fn check(&self, pin: &Pin, origin: Option<&Arc<Origin>>) -> Promise {
        let Asked { promise, launches } = self.core().life.check(pin, origin, || Stamp {
            nonce: rand::random(),
            asked: Instant::now(),
        });
        if launches {
            supervisor::spawn(Arc::clone(self.core()));
        }
        promise
    }

    /// Removes every settled promise from the cache: the next check of its pin asks the plugin
    /// again. Pending checks are not affected.
    pub fn clear_cache(&self) {
        self.core().life.clear();
    }

    /// Closes the plugin and waits until it is reaped; returns how it exited.
    ///
    /// Closes the plugin's stdin, which asks it to shut down, and kills it after `grace`. A grace
    /// of more than [`MAX_GRACE`](crate::MAX_GRACE) is shortened to that, with a warning.
    /// Pending checks fail at once with [`CheckError::Aborted`]. Any number of callers may
    /// close a plugin: all wait for the same exit, and the shortest grace counts.
    ///
    /// # Cancel safety
    ///
    /// Acts when it is first polled. Dropping the future after that does not stop the
    /// shutdown.
    ///
    /// [`CheckError::Aborted`]: crate::CheckError::Aborted
    pub async fn close(&self, grace: Duration) -> Exit {
        self.start_close(grace);
        self.core().life.exit().await
    }

    /// Starts to close the plugin and returns at once. Otherwise behaves like
    /// [`close`](Self::close), which also waits.
    pub fn start_close(&self, grace: Duration) {
        start_close(self.core(), grace);
    }

    /// Returns the name of the plugin in logs and errors.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core().name
    }

    /// Returns the state of the plugin.
    #[must_use]
    pub fn state(&self) -> PluginState {
        self.core().life.state()
    }

    /// Returns how much of the plugin's output was ignored so far.
    #[must_use]
    pub fn ignored_input(&self) -> IgnoredInput {
        self.core().life.ignored_input()
    }

    fn core(&self) -> &Arc<Core> {
        let Handle(core) = &*self.0;
        core
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        start_close(&self.0, Duration::ZERO);
    }
}

impl PluginOptions {
    /// Sets the check timeout. Without it, checks wait until the plugin exits, fails or is
    /// closed.
    ///
    /// The timeout of a check starts at the latest of three events: the check was requested,
    /// the plugin connected, the plugin settled another check. So checks of a busy plugin do
    /// not time out while the plugin makes progress.
    #[must_use]
    pub fn check_timeout(mut self, timeout: Duration) -> Self {
        self.check_timeout = Some(timeout);
        self
    }

    /// Sets how long the plugin may take to connect after it was started; 30 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how many checks may be in flight, sent to the plugin and pending; 16,384 by
    /// default, and at least 1. Further checks wait in the host. On
    /// [`Wire::Grpc`](crate::Wire::Grpc) the plugin's own flow control is the limit. The same
    /// number of metadata calls may wait, on both wires.
    #[must_use]
    pub fn max_in_flight(mut self, checks: usize) -> Self {
        self.max_in_flight = checks.max(1);
        self
    }
}

impl Default for PluginOptions {
    fn default() -> Self {
        Self {
            check_timeout: None,
            connect_timeout: CONNECT_TIMEOUT,
            max_in_flight: MAX_IN_FLIGHT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_send_and_sync() {
        fn assert_send_sync<T: Send + Sync>() {}
        assert_send_sync::<Plugin>();
    }
}
