//! A plugin as its users hold it.

pub(crate) mod checks;
mod core;
mod hearing;
mod life;
#[cfg(test)]
mod life_test;
mod metadata;
mod origin;
pub(crate) mod promise;
mod services;
pub(crate) mod state;
mod supervisor;
mod verdict;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use admission_proto::Pin;

pub(crate) use self::core::Core;
pub use self::core::MAX_GRACE;
pub(crate) use self::services::Services;
use crate::repository::Repository;
use crate::transport::Exit;
use origin::Origin;
use promise::Promise;
use state::PluginState;

/// How long a plugin has to connect unless told otherwise: the reference's limit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Undecided admissions that may be out at once unless told otherwise.
const MAX_IN_FLIGHT: usize = 16_384;

/// A plugin that judges pins for one host.
///
/// It is started by the first check, and at most once. Cheap to clone; dropping the
/// last clone kills it.
#[derive(Clone)]
pub struct Plugin(Arc<Handle>);

/// Kills the plugin when the last user is gone.
struct Handle(Arc<Core>);

/// How a host deals with a plugin.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PluginOptions {
    check_timeout: Option<Duration>,
    connect_timeout: Duration,
    max_in_flight: usize,
}

/// What a plugin said to no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct IgnoredInput {
    /// Verdicts on checks that were never asked or are settled.
    pub verdicts: u64,
    /// Frames that only a newer protocol defines.
    pub unknown_frames: u64,
}

impl Plugin {
    /// Makes the first handle of a plugin.
    pub(crate) fn from_core(core: Arc<Core>) -> Self {
        Self(Arc::new(Handle(core)))
    }

    /// Asks whether `pin` may be deployed.
    ///
    /// Never blocks. The first check starts the plugin; a pin that was asked before
    /// gets the promise of that time, pending or settled, until
    /// [`clear_cache`](Self::clear_cache). Once the plugin has ended, a pin that was
    /// not asked before gets a promise settled with the reason, which is not kept.
    #[must_use]
    pub fn check_admission(&self, pin: &Pin) -> Promise {
        self.0.0.check(pin)
    }

    /// Asks whether `pin`, a package of the service at `service_url`, may be deployed, and
    /// has the plugin judge it whatever was asked before.
    ///
    /// For a program that passes on the questions of others, each with a service and
    /// metadata of its own. Metadata calls for this check go to `repository`, in place of
    /// the host's and for as long as the check is undecided. The promise is known to the
    /// caller alone: no later check is given it, and its verdict is as long as the plugin
    /// made it. Else as [`check_admission`](Self::check_admission).
    #[must_use]
    pub fn check_uncached(
        &self,
        pin: &Pin,
        service_url: impl Into<String>,
        repository: Arc<dyn Repository>,
    ) -> Promise {
        let service_url = service_url.into();
        let origin = Origin {
            service_url,
            repository,
        };
        self.0.0.check_uncached(pin, origin)
    }

    /// Forgets every promise that is settled, so that its pin will be asked again.
    pub fn clear_cache(&self) {
        self.0.0.life.clear();
    }

    /// Closes the plugin and waits until nothing of it is left; returns how it exited.
    ///
    /// The plugin is asked to finish by the end of its stdin, and killed once `grace` has
    /// passed; a grace of more than [`MAX_GRACE`](crate::MAX_GRACE) is shortened to that, with a
    /// warning. Undecided checks fail at once with [`CheckError::Aborted`]. Any number of
    /// callers may close a plugin: all wait for the same exit, and the shortest grace counts.
    ///
    /// # Cancel safety
    ///
    /// Acts when it is first polled. Dropping the future after that does not stop the
    /// closing.
    ///
    /// [`CheckError::Aborted`]: crate::CheckError::Aborted
    pub async fn close(&self, grace: Duration) -> Exit {
        self.start_close(grace);
        self.0.0.ended().await
    }

    /// Starts to close the plugin and returns at once. Otherwise behaves like
    /// [`close`](Self::close), which also waits.
    pub fn start_close(&self, grace: Duration) {
        self.0.0.close(grace);
    }

    /// Returns the name by which logs and errors call the plugin.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.0.name()
    }

    /// Returns where the plugin is in its life.
    #[must_use]
    pub fn state(&self) -> PluginState {
        self.0.0.life.state()
    }

    /// Returns how much of what the plugin said had no effect.
    #[must_use]
    pub fn strays(&self) -> IgnoredInput {
        self.0.0.ignored_input()
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
        self.0.close(Duration::ZERO);
    }
}

impl PluginOptions {
    /// Sets how long a check may take before it times out; there is no limit unless
    /// this is called.
    ///
    /// The time runs from the latest of: the check was asked, the plugin connected,
    /// and the plugin settled a check. A busy plugin is not a stuck one.
    #[must_use]
    pub fn check_timeout(mut self, timeout: Duration) -> Self {
        self.check_timeout = Some(timeout);
        self
    }

    /// Sets how long the plugin may take to connect once it is started; 30 s unless
    /// this is called.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how many undecided admissions may be out at the plugin at once; 16,384
    /// unless this is called, and never less than 1. On [`Wire::Grpc`](crate::Wire::Grpc)
    /// the plugin's own flow control is the limit.
    #[must_use]
    pub fn max_in_flight(mut self, admissions: usize) -> Self {
        self.max_in_flight = admissions.max(1);
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
