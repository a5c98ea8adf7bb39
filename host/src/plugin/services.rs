//! What a host does for its plugins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use admission_proto::frame::HOST_LIMIT;
use admission_proto::wire::PROTOCOL_VERSION;
use admission_proto::wire::stdio::Hello;
use tokio::runtime::Handle;

use crate::log::LogLevel;
use crate::repository::Repository;
use crate::session::grpc::Server;

/// What all plugins of one host share.
pub(crate) struct Services {
    pub(crate) runtime: Handle,
    pub(crate) service_url: String,
    pub(crate) repository: Option<Arc<dyn Repository>>,
    pub(crate) plugin_log_level: LogLevel,
    /// What plugins are told about the program that asks.
    pub(crate) name: String,
    pub(crate) version: String,
    /// What plugins call that do not speak over stdin and stdout.
    pub(crate) grpc: Server,
    /// Set when the host is closed: nothing is started any more.
    pub(crate) closed: AtomicBool,
}

impl Services {
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

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
