//! The host: what all plugins of one program share.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use admission_proto::frame::HOST_LIMIT;
use admission_proto::wire::PROTOCOL_VERSION;
use admission_proto::wire::stdio::Hello;
use futures_util::future::join_all;
use tokio::runtime::Handle;

use crate::log::LogLevel;
use crate::plugin::{Core, PluginOptions};
use crate::repository::Repository;
use crate::transport::Launcher;

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
    plugins: Mutex<Vec<Weak<Core>>>,
}

/// What a host does for its plugins.
pub(crate) struct Services {
    pub(crate) runtime: Handle,
    pub(crate) service_url: String,
    pub(crate) repository: Option<Arc<dyn Repository>>,
    plugin_log_level: LogLevel,
    name: String,
    version: String,
    closed: AtomicBool,
}

/// What a [`Host`] is made from.
#[non_exhaustive]
pub struct HostOptions {
    runtime: Handle,
    service_url: String,
    repository: Option<Arc<dyn Repository>>,
    plugin_log_level: LogLevel,
    component_cache: Option<PathBuf>,
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
            .finish_non_exhaustive()
    }
}

impl Host {
    /// Creates a host. Starts nothing.
    #[must_use]
    pub fn new(options: HostOptions) -> Self {
        let services = Services {
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
            plugins: Mutex::default(),
        }))
    }

    /// Closes all plugins, as [`Plugin::close`](crate::Plugin::close) does, and starts
    /// no new ones.
    ///
    /// The request is made by the call itself, and goes on when the future is dropped.
    pub fn close(&self, grace: Duration) -> impl Future<Output = ()> + Send + use<> {
        let plugins = self.plugins();
        self.0.services.closed.store(true, Ordering::SeqCst);
        let cores = plugins.iter().filter_map(Weak::upgrade);
        let closing = join_all(cores.map(|core| core.close(grace)));
        drop(plugins);
        async move {
            closing.await;
        }
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.0.services.runtime
    }

    pub(crate) fn component_cache(&self) -> Option<PathBuf> {
        self.0.component_cache.clone()
    }

    /// Adds a plugin, to be closed with the host.
    pub(crate) fn add(
        &self,
        name: Arc<str>,
        launcher: Box<dyn Launcher>,
        options: PluginOptions,
    ) -> Arc<Core> {
        let core = Arc::new(Core::new(
            name,
            launcher,
            options,
            Arc::clone(&self.0.services),
        ));
        let mut plugins = self.plugins();
        plugins.retain(|plugin| plugin.strong_count() > 0);
        plugins.push(Arc::downgrade(&core));
        core
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

impl Services {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Returns how the host opens a conversation.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            protocol_version: PROTOCOL_VERSION,
            host_name: self.name.clone(),
            host_version: self.version.clone(),
            max_frame_size: u32::try_from(HOST_LIMIT).expect("the limit is 1 MiB"),
            log_level: self.plugin_log_level.as_str().to_owned(),
        }
    }
}
