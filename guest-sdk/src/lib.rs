//! Write a CIPD admission policy once; build it native or as a WASI component.
//!
//! A package client asks an *admission plugin* whether it may deploy a package instance. The
//! plugin contains a *policy*, the rules that its author writes. Its `main` passes a
//! [`Handler`] to [`run_plugin`]. The host starts the plugin and asks it to judge instances. To
//! close the plugin, the host ends the plugin's stdin:
//!
//! ```no_run
//! use admission_sdk::{Admission, InstanceInfo, RunError, Status, run_plugin};
//!
//! async fn judge(admission: Admission, _: InstanceInfo) -> Result<(), Status> {
//!     if admission.package.starts_with("experimental/") {
//!         return Err(Status::denied("experimental packages are not deployed"));
//!     }
//!     Ok(())
//! }
//!
//! fn main() -> Result<(), RunError> {
//!     run_plugin("1.0", judge)
//! }
//! ```
//!
//! Only `Ok(())` admits. [`Status::denied`] denies. Any other status means that the check
//! failed. `cargo build` builds a native plugin from this source, and
//! `cargo build --target wasm32-wasip2` a component. The sections below say what differs.
//!
//! *The reference* is CIPD's own implementation in Go, [`go.chromium.org/luci/cipd`]. A *stock
//! client* is its unmodified program `cipd`.
//!
//! [`go.chromium.org/luci/cipd`]: https://pkg.go.dev/go.chromium.org/luci/cipd
//!
//! # Checks run concurrently
//!
//! Each check runs in its own task, so a check that waits for metadata does not delay others.
//!
//! Natively, handlers run on a multi-threaded tokio runtime of the SDK. They may use its timers
//! and sockets. The runtime has as many threads as the machine has cores, so make blocking
//! calls in `spawn_blocking`.
//!
//! A component has one thread and no tokio runtime. Its handlers may await only the futures of
//! the SDK, and combinations of them such as joins and channels. Nothing wakes other futures.
//!
//! # Two wires
//!
//! A native plugin exchanges frames over stdin and stdout, or makes gRPC calls. A stock client,
//! for example, uses gRPC. The first bytes from the host select the wire, and the handler sees
//! no difference. The feature `grpc`, on by default, adds the gRPC wire. A component, or a native
//! plugin without this feature, fails with [`RunError::GrpcWire`] if the host speaks gRPC.
//!
//! # Closing
//!
//! When the host ends stdin, waiting metadata calls fail with [`Code::CANCELLED`], the futures
//! of handlers are dropped, and [`run_plugin`] returns `Ok(())`, even while a handler blocks
//! its thread. Over gRPC, a host can also end the stream of admissions: then the plugin
//! finishes its pending checks before [`run_plugin`] returns. Any failure ends the plugin at
//! once.
//!
//! # Panics
//!
//! A panic in a handler settles its check with [`Code::ABORTED`] and
//! `panic in the admission handler: ...`. A native plugin keeps running. If it was built with
//! `panic = "abort"`, it aborts without a verdict, and its pending checks fail with
//! `signal: aborted`. A component sends the verdict and then traps; its other pending checks
//! fail with the trap.
//!
//! # Logs
//!
//! [`run_plugin`] sends [`tracing`] events to the host, unless the program has set a global
//! subscriber. If you set your own subscriber, add [`log_layer`] to it. The host chooses the
//! level. A gRPC host cannot choose: it gets events of the level info and above. The lines of a
//! handler arrive in order and before its verdict. Span fields are not sent. Trace events are
//! not sent either, because the host has no such level. A line is cut at 16 KiB.
//!
//! # Stdin and stdout
//!
//! Natively, the SDK takes over stdin and stdout before the first check. From then on, `println!`
//! writes to stderr and stdin is empty, also in child processes. A component's stdout cannot be
//! redirected: printing to it breaks the protocol and ends the plugin. Use [`tracing`] or
//! `eprintln!`.

mod check;
mod detect_wire;
mod error;
mod handler;
mod inbound;
mod info;
mod log;
mod metadata_calls;
mod outbox;
mod panic;
mod run;
mod session;
mod verdict;

#[cfg(target_arch = "wasm32")]
mod component;
#[cfg(not(target_arch = "wasm32"))]
mod native;

#[cfg(target_arch = "wasm32")]
use component as platform;
#[cfg(not(target_arch = "wasm32"))]
use native as platform;

pub use admission_proto::{
    Admission, Code, Detail, HashAlgo, InstanceMetadata, MetadataPage, ObjectRef, Status,
};
pub use error::RunError;
pub use handler::Handler;
pub use info::InstanceInfo;
pub use log::{log_layer, log_line};
pub use run::run_plugin;
#[cfg(not(target_arch = "wasm32"))]
pub use run::run_plugin_async;
