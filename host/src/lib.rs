//! Runs CIPD admission plugins, as subprocesses or as sandboxed WASI components.
//!
//! A client that is about to deploy a package asks a [`Plugin`] whether it may. The first
//! check starts the plugin, every check returns a [`Promise`], and [`Plugin::close`] shuts the
//! plugin down.
//!
//! ```no_run
//! use std::time::Duration;
//! use admission_host::{Host, HostOptions, NativeCommand, Pin};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::new(HostOptions::new(tokio::runtime::Handle::current()));
//! // With the feature `wasm`, a `Component` can be passed instead.
//! let plugin = host.plugin(NativeCommand::new(["./policy"]));
//! let pin: Pin = "infra/tools/cipd/linux-amd64:qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC".parse()?;
//! // Fails closed: a pin that was denied, or that could not be judged, is an error.
//! plugin.check_admission(&pin).await?;
//! plugin.close(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! All are enabled by default. Without any, the host runs native plugins over stdio and takes
//! metadata from memory, from a JSON file, or from the embedder.
//!
//! - `wasm`: components, `Component`. Compiles wasmtime with Cranelift.
//! - `grpc`: native plugins with [`Wire::Grpc`], which fail to launch without it. Compiles tonic
//!   and hyper.
//! - `prpc`: metadata of a CIPD service, `PrpcRepository`. Compiles reqwest and rustls.
//!
//! # Containment
//!
//! A native plugin is not restricted: it runs as the user who runs the host. A component gets
//! its three standard streams, clocks and random numbers, and nothing else.
//!
//! # Logs
//!
//! Logs are [`tracing`] events with a field `plugin`. Lines that plugins log have the target
//! `admission_host::plugin`. Failures of plugins have the target `admission_host::end`; the
//! checks of the plugin return the same errors.
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
    Code, Detail, HashAlgo, InstanceId, InstanceMetadata, LogLevel, MetadataPage, ObjectRef, Pin,
    PinError, ServiceUrl, ServiceUrlError, Status, Wire,
};
pub use error::{CheckError, PluginError};
pub use error_kind::ErrorKind;
pub use host::{Host, HostOptions};
pub use plugin::{IgnoredInput, MAX_GRACE, Plugin, PluginOptions, PluginState, Promise};
pub use repository::{
    ListMetadata, MemoryRepository, MetadataFileError, MetadataFuture, Repository,
};
#[cfg(feature = "prpc")]
pub use repository::{PrpcOptions, PrpcRepository, PrpcRepositoryError, TokenError};
pub use source::Source;
pub use transport::Exit;
pub use transport::native::{NativeCommand, guard};
#[cfg(feature = "wasm")]
pub use transport::wasm::Component;
