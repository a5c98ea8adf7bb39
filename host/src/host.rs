//! The host: all plugins of a program, and their shared state.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use admission_proto::LogLevel;
use futures_util::future::join_all;
use tokio::runtime::Handle;

use crate::plugin::{Core, Plugin, PluginOptions, Services, Settings, start_close};
use crate::repository::Repository;
use crate::source::Source;
use crate::transport::native::GuardCommand;

/// The CIPD service of the Chromium project.
const SERVICE_URL: &str = "https://chrome-infra-packages.appspot.com";

/// Runs admission plugins for one CIPD client. Cheap to clone.
///
/// Dropping the host does not stop its plugins; dropping the last handle of a plugin kills
/// that plugin.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    services: Arc<Services>,
    component_cache: Option<PathBuf>,
    guard: Option<GuardCommand>,
    plugins: Mutex<Vec<Weak<Core>>>,
}

/// Options of a [`Host`].
#[non_exhaustive]
pub struct HostOptions {
    settings: Settings,
    component_cache: Option<PathBuf>,
    guard: Option<GuardCommand>,
}

impl HostOptions {
    /// Creates options for plugins that run on `runtime`, whose I/O and time drivers must be
    /// enabled.
    ///
    /// A component computes on the thread that polls it, for up to 10 ms at a time. If other
    /// tasks cannot wait that long, give the plugins a runtime of their own.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        let settings = Settings {
            runtime,
            service_url: SERVICE_URL.to_owned(),
            repository: None,
            plugin_log_level: LogLevel::default(),
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Self {
            settings,
            component_cache: None,
            guard: None,
        }
    }

    /// Sets the URL of the CIPD service whose packages are judged, without a trailing slash;
    /// <https://chrome-infra-packages.appspot.com> by default.
    #[must_use]
    pub fn service_url(mut self, url: impl Into<String>) -> Self {
        self.settings.service_url = url.into();
        self
    }

    /// Sets the source of metadata. Without it, metadata calls fail with UNIMPLEMENTED.
    #[must_use]
    pub fn repository(mut self, repository: Arc<dyn Repository>) -> Self {
        self.settings.repository = Some(repository);
        self
    }

    /// Sets the lowest level of log lines: plugins should not send lines below it, and the host
    /// does not log them. Info by default.
    #[must_use]
    pub fn plugin_log_level(mut self, level: LogLevel) -> Self {
        self.settings.plugin_log_level = level;
        self
    }

    /// Sets the directory that caches compiled components; without it, a component is compiled
    /// at every launch. Created if it is missing.
    ///
    /// Only this user may have write access: the host executes the code in it.
    #[must_use]
    pub fn component_cache(mut self, directory: impl Into<PathBuf>) -> Self {
        self.component_cache = Some(directory.into());
        self
    }

    /// Sets the guard of native plugins: a program, started with `arguments` and further ones,
    /// which it passes to [`guard::run`](crate::guard::run).
    ///
    /// With a guard, no descendant of a plugin outlives the plugin or this process. Without
    /// one, a descendant that has left the plugin's process group may do so. See
    /// [`guard`](crate::guard).
    ///
    /// `/proc/self/exe` names the running program, even if its file was replaced. A name
    /// without a slash is looked up in the plugin's `PATH`.
    #[must_use]
    pub fn guard(
        mut self,
        program: impl Into<OsString>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        self.guard = Some(GuardCommand::new(program.into(), arguments));
        self
    }

    /// Sets the name and version of this program that the host sends to plugins, for their
    /// logs.
    #[must_use]
    pub fn name_and_version(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self.settings.version = version.into();
        self
    }
}

impl fmt::Debug for HostOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostOptions")
            .field("service_url", &self.settings.service_url)
            .field("plugin_log_level", &self.settings.plugin_log_level)
            .field("component_cache", &self.component_cache)
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// Creates a host. Starts nothing.
    #[must_use]
    pub fn new(options: HostOptions) -> Self {
        Self(Arc::new(Inner {
            services: Arc::new(Services::new(options.settings)),
            component_cache: options.component_cache,
            guard: options.guard,
            plugins: Mutex::default(),
        }))
    }

    /// Creates a plugin, which is closed with this host. Neither starts it nor validates
    /// `source`: an invalid source is the error of the first check.
    #[must_use]
    pub fn plugin(&self, source: impl Into<Source>) -> Plugin {
        self.plugin_with_options(source, PluginOptions::default())
    }

    /// Creates a plugin with `options`. Otherwise behaves like [`plugin`](Self::plugin).
    #[must_use]
    pub fn plugin_with_options(&self, source: impl Into<Source>, options: PluginOptions) -> Plugin {
        let source = source.into();
        let Inner {
            services,
            component_cache,
            guard,
            ..
        } = &*self.0;
        let core = Arc::new(Core::new(
            source.plugin_name(),
            source.into_launcher(
                guard.clone(),
                component_cache.clone(),
                &services.settings.runtime,
            ),
            options,
            Arc::clone(services),
        ));
        let mut plugins = self.plugins();
        plugins.retain(|plugin| plugin.strong_count() > 0);
        plugins.push(Arc::downgrade(&core));
        drop(plugins);
        Plugin::from_core(core)
    }

    /// Closes all plugins like [`Plugin::close`](crate::Plugin::close), and waits until they
    /// are reaped. Checks of a closed host fail.
    ///
    /// # Cancel safety
    ///
    /// Acts when it is first polled. Dropping the future after that does not stop the
    /// shutdown.
    pub async fn close(&self, grace: Duration) {
        let cores = self.close_plugins(grace);
        join_all(cores.iter().map(|core| core.life.exit())).await;
        #[cfg(feature = "grpc")]
        self.0.services.grpc.stopped().await;
    }

    /// Starts to close all plugins and returns at once. No plugin is started after that.
    pub fn start_close(&self, grace: Duration) {
        self.close_plugins(grace);
    }

    /// Starts to close all plugins, and returns them.
    fn close_plugins(&self, grace: Duration) -> Vec<Arc<Core>> {
        self.0.services.closed.store(true, Ordering::SeqCst);
        let cores: Vec<_> = self.plugins().iter().filter_map(Weak::upgrade).collect();
        // Without the lock: a waiter that wakes may create a plugin.
        for core in &cores {
            start_close(core, grace);
        }
        // After the plugins: each of them needs the server for its shutdown.
        #[cfg(feature = "grpc")]
        self.0.services.grpc.close();
        cores
    }

    fn plugins(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Core>>> {
        self.0
            .plugins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("service_url", &self.0.services.settings.service_url)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_send_and_sync() {
        fn assert_send_sync<T: Send + Sync>() {}
        assert_send_sync::<Host>();
    }
}
