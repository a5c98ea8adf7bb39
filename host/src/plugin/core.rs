//! The state that the handles of a plugin and its supervisor share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use admission_proto::LogLevel;
use admission_proto::frame::HOST_LIMIT;
use admission_proto::wire::PROTOCOL_VERSION;
use admission_proto::wire::stdio::Hello;
use tokio::runtime::Handle;

use super::PluginOptions;
use super::life::Life;
use crate::error::{Failure, PluginError};
use crate::repository::Repository;
#[cfg(feature = "grpc")]
use crate::session::grpc::Server;
use crate::transport::Launcher;

/// Target of the events about a plugin that failed. They repeat the errors of its checks, so a
/// program that shows those errors may want to filter the events out.
pub(super) const FAILURE: &str = "admission_host::end";

/// Limit of pending checks. A further check fails at once.
const MAX_PENDING: usize = 1_000_000;

/// One plugin: its life, and everything needed to run it.
pub(crate) struct Core {
    pub(super) name: Arc<str>,
    pub(super) options: PluginOptions,
    pub(super) launcher: Box<dyn Launcher>,
    pub(super) services: Arc<Services>,
    pub(crate) life: Life,
}

/// The state that all plugins of a host share.
pub(crate) struct Services {
    pub(crate) settings: Settings,
    /// Serves the plugins that use gRPC.
    #[cfg(feature = "grpc")]
    pub(crate) grpc: Server,
    /// Set when the host is closed: no plugin is launched any more.
    pub(crate) closed: AtomicBool,
}

/// The settings of a host for all its plugins.
pub(crate) struct Settings {
    pub(crate) runtime: Handle,
    pub(crate) service_url: String,
    pub(crate) repository: Option<Arc<dyn Repository>>,
    pub(crate) plugin_log_level: LogLevel,
    /// Name and version of the embedder, for the plugins' logs.
    pub(crate) name: String,
    pub(crate) version: String,
}

impl Core {
    pub(crate) fn new(
        name: Arc<str>,
        launcher: Box<dyn Launcher>,
        options: PluginOptions,
        services: Arc<Services>,
    ) -> Self {
        Self {
            life: Life::new(Arc::clone(&name), MAX_PENDING),
            name,
            options,
            launcher,
            services,
        }
    }

    /// Marks a plugin that did not connect as broken.
    pub(super) fn fail_to_start(&self, failure: Failure) {
        let error = PluginError::from(failure);
        let plugin = &*self.name;
        if self.life.fail(&error, Instant::now()) {
            tracing::warn!(target: FAILURE, plugin, %error, "the admission plugin failed to start");
        }
    }
}

impl Services {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            #[cfg(feature = "grpc")]
            grpc: Server::new(settings.runtime.clone()),
            settings,
            closed: AtomicBool::new(false),
        }
    }

    /// Returns the first frame that a plugin gets.
    pub(super) fn hello(&self) -> Hello {
        Hello {
            protocol_version: PROTOCOL_VERSION,
            host_name: self.settings.name.clone(),
            host_version: self.settings.version.clone(),
            max_frame_size: u32::try_from(HOST_LIMIT).expect("the limit is 1 MiB"),
            log_level: self.settings.plugin_log_level.as_str().to_owned(),
        }
    }
}
