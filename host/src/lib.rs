//! Runs CIPD admission plugins, as subprocesses or as sandboxed WASI components.
//!
//! A client that is about to deploy a package instance asks a [`Plugin`] whether it
//! may. The plugin is started by the first question, answers every question with a
//! [`Promise`], and is ended by [`Plugin::close`].
//!
//! ```no_run
//! use std::time::Duration;
//! use admission_host::{Component, Host, HostOptions, Pin, Plugin};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::new(HostOptions::new(tokio::runtime::Handle::current()));
//! let plugin = host.plugin(Component::from_file("policy.wasm"));
//! let pin: Pin = "infra/tools/cipd/linux-amd64:qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC".parse()?;
//! // Fails closed: what was denied, or could not be judged, is an error.
//! plugin.check_admission(&pin).wait().await?;
//! plugin.close(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! Logs are [`tracing`] events with a field `plugin`: what plugins themselves say has the
//! target `admission_host::plugin`, and how they failed, which their checks say too, has
//! `admission_host::end`.
//!
//! What a native plugin may do is not restricted: it runs as the user who runs the
//! host. A component gets nothing but its three streams, clocks and random numbers.

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
mod sync;
mod transport;

pub use admission_proto::{
    Code, Detail, HashAlgo, InstanceId, InstanceMetadata, ObjectRef, Pin, PinError, Status,
};
pub use error::{CheckError, PluginError};
pub use error_kind::ErrorKind;
pub use host::{Host, HostOptions};
pub use log::LogLevel;
pub use plugin::promise::{Promise, Wait};
pub use plugin::state::PluginState;
pub use plugin::{IgnoredInput, MAX_GRACE, Plugin, PluginOptions};
pub use repository::{
    JsonRepository, JsonRepositoryError, ListMetadata, MemoryRepository, MetadataFuture,
    MetadataPage, PrpcOptions, PrpcRepository, PrpcRepositoryError, Repository, TokenError,
};
pub use source::Source;
pub use transport::native::{NativeCommand, guard};
pub use transport::wasm::Component;
pub use transport::{Exit, Wire};
