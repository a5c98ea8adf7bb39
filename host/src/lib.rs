//! Runs CIPD admission plugins, as subprocesses or as sandboxed WASI components.
//!
//! A client that is about to deploy a package asks a [`Plugin`] whether it may. The first
//! check starts the plugin, every check returns a [`Promise`], and [`Plugin::close`] ends the
//! plugin.
//!
//! ```no_run
//! use std::time::Duration;
//! use admission_host::{Component, Host, HostOptions, Pin};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::new(HostOptions::new(tokio::runtime::Handle::current()));
//! let plugin = host.plugin(Component::from_file("policy.wasm"));
//! let pin: Pin = "infra/tools/cipd/linux-amd64:qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC".parse()?;
//! // Fails closed: a pin that was denied, or that could not be judged, is an error.
//! plugin.check_admission(&pin).await?;
//! plugin.close(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Containment
//!
//! A native plugin is not restricted: it runs as the user who runs the host. A component gets
//! its three standard streams, clocks and random numbers, and nothing else.
//!
//! # Logs
//!
//! Logs are [`tracing`] events with a field `plugin`. Lines that plugins log have the target
//! `admission_host::plugin`. How plugins failed, which their checks report too, has the target
//! `admission_host::end`.
//!
//! # The reference
//!
//! *The reference* is CIPD's own implementation of admission plugins, in Go: the plugin host
//! in the `cipd` client and its plugin library. Behaviour, limits and error texts of this
//! crate follow it unless the documentation says otherwise.

#[cfg(not(target_os = "linux"))]
compile_error!("admission-host runs on Linux only: it relies on pidfds and parent-death signals");

mod error;
mod error_kind;
mod host;
mod log;
mod plugin;
mod repository;
mod session;
mod source;
mod transport;

pub use admission_proto::{
    Code, Detail, HashAlgo, InstanceId, InstanceMetadata, ObjectRef, Pin, PinError, Status,
};
pub use error::{CheckError, PluginError};
pub use error_kind::ErrorKind;
pub use host::{Host, HostOptions};
pub use log::LogLevel;
pub use plugin::{IgnoredInput, MAX_GRACE, Plugin, PluginOptions, PluginState, Promise};
pub use repository::{
    ListMetadata, MemoryRepository, MetadataFileError, MetadataFuture, MetadataPage, PrpcOptions,
    PrpcRepository, PrpcRepositoryError, Repository, TokenError,
};
pub use source::Source;
pub use transport::native::{NativeCommand, guard};
pub use transport::wasm::Component;
pub use transport::{Exit, Wire};
