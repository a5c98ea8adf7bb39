//! The host: what all plugins of one program share.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;

use crate::log::LogLevel;
use crate::plugin::{Core, Plugin, PluginOptions, Services};
use crate::repository::Repository;
use crate::session::grpc::Server;
use crate::source::Source;
use crate::transport::native::GuardCommand;

/// The CIPD service of the Chromium project.
const SERVICE_URL: &str = "https://chrome-infra-packages.appspot.com";

/// Runs admission plugins for one CIPD client. Cheap to clone.
///
/// Holds its plugins weakly: dropping the host does not end them, dropping their last
/// handles does.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    services: Arc<Services>,
    component_cache: Option<PathBuf>,
    guard: Option<GuardCommand>,
    plugins: Mutex<Vec<Weak<Core>>>,
}

/// What a [`Host`] is made from.
#[non_exhaustive]
pub struct HostOptions {
    runtime: Handle,
    service_url: String,
    repository: Option<Arc<dyn Repository>>,
    plugin_log_level: LogLevel,
    component_cache: Option<PathBuf>,
    guard: Option<GuardCommand>,
    name: String,
    version: String,
}

impl HostOptions {
    /// Creates options for plugins that run on `runtime`, which must have its I/O and
    /// time drivers on.
    ///
    /// A component computes on the thread that polls it, for up to 10 ms at a time:
    /// where other tasks cannot wait that long, give plugins a runtime of their own.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            service_url: SERVICE_URL.to_owned(),
            repository: None,
            plugin_log_level: LogLevel::default(),
            component_cache: None,
            guard: None,
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Sets the URL of the CIPD service whose packages are judged, without a trailing
    /// slash; <https://chrome-infra-packages.appspot.com> unless this is called.
    #[must_use]
    pub fn service_url(mut self, url: impl Into<String>) -> Self {
        self.service_url = url.into();
        self
    }

    /// Sets where metadata comes from. Without it, a plugin that asks for metadata
    /// gets UNIMPLEMENTED.
    #[must_use]
    pub fn repository(mut self, repository: Arc<dyn Repository>) -> Self {
        self.repository = Some(repository);
        self
    }

    /// Sets the least severe log lines that plugins are asked to send; info unless
    /// this is called.
    #[must_use]
    pub fn plugin_log_level(mut self, level: LogLevel) -> Self {
        self.plugin_log_level = level;
        self
    }

    /// Sets the folder in which compiled components are kept. It must be this user's
    /// alone: what is in it is run. It is created when it is missing.
    #[must_use]
    pub fn component_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.component_cache = Some(folder.into());
        self
    }

    /// Sets the program that keeps each native plugin contained, and its first
    /// arguments; it calls [`guard::run`](crate::guard::run) with those that follow them.
    ///
    /// With a guard, nothing that a plugin has started is left when it has ended, nor
    /// when this process was killed. Without one, a descendant that has left the plugin's
    /// process group may be. `docs/containment.md` has the details.
    ///
    /// `/proc/self/exe` names the program that runs now, whatever has become of its file.
    /// A name without a slash would be looked up in the plugin's `PATH`.
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

    /// Sets what plugins are told about the program that asks; for their logs.
    #[must_use]
    pub fn name_and_version(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.name = name.into();
        self.version = version.into();
        self
    }
}

impl fmt::Debug for HostOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostOptions")
            .field("service_url", &self.service_url)
            .field("plugin_log_level", &self.plugin_log_level)
            .field("component_cache", &self.component_cache)
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// Creates a host. Starts nothing.
    #[must_use]
    pub fn new(options: HostOptions) -> Self {
        let services = Services {
            grpc: Server::new(options.runtime.clone()),
            runtime: options.runtime,
            service_url: options.service_url,
            repository: options.repository,
            plugin_log_level: options.plugin_log_level,
            name: options.name,
            version: options.version,
            closed: AtomicBool::new(false),
        };
        Self(Arc::new(Inner {
            services: Arc::new(services),
            component_cache: options.component_cache,
            guard: options.guard,
            plugins: Mutex::default(),
        }))
    }

    /// Creates a plugin, which is closed with this host. Starts and validates nothing: what
    /// is wrong with `source` is the error of the first check.
    #[must_use]
    pub fn plugin(&self, source: impl Into<Source>) -> Plugin {
        self.plugin_with_options(source, PluginOptions::default())
    }

    /// Creates a plugin that is run with `options`. Otherwise behaves like
    /// [`plugin`](Self::plugin).
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
            source.into_launcher(guard.clone(), component_cache.clone(), &services.runtime),
            options,
            Arc::clone(services),
        ));
        let mut plugins = self.plugins();
        plugins.retain(|plugin| plugin.strong_count() > 0);
        plugins.push(Arc::downgrade(&core));
        drop(plugins);
        Plugin::from_core(core)
    }

    /// Closes all plugins like [`Plugin::close`](crate::Plugin::close), and waits until
    /// nothing of them is left.
    ///
    /// # Cancel safety
    ///
    /// Acts when it is first polled. Dropping the future after that does not stop the
    /// closing.
    pub async fn close(&self, grace: Duration) {
        self.start_close(grace);
        let cores: Vec<_> = self.plugins().iter().filter_map(Weak::upgrade).collect();
        join_all(cores.iter().map(|core| core.ended())).await;
        self.0.services.grpc.stopped().await;
    }

    /// Starts to close all plugins and starts no new ones. Does not wait.
    pub fn start_close(&self, grace: Duration) {
        let plugins = self.plugins();
        self.0.services.close();
        for core in plugins.iter().filter_map(Weak::upgrade) {
            core.close(grace);
        }
        drop(plugins);
        // Plugins are asked to finish while they can still be heard.
        self.0.services.grpc.close();
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
            .field("service_url", &self.0.services.service_url)
            .finish_non_exhaustive()
    }
}
