//! Write a CIPD admission policy once; build it native or as a WASI component.
//!
//! A policy is a program whose `main` hands a [`Handler`] to [`run_plugin`]. The host
//! starts the program, asks it about each package instance that is to be deployed, and
//! ends its stdin when it is no longer needed:
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
//! Only `Ok(())` admits. [`Status::denied`] denies, any other status says that the
//! check failed. `cargo build` makes a native plugin of this source and
//! `cargo build --target wasm32-wasip2` a component; what differs is said below.
//!
//! # Checks run side by side
//!
//! Each check is its own task: one that waits for metadata holds up nobody else.
//! Natively handlers run on a multi-threaded tokio runtime of the SDK's own, so they
//! may use its timers, sockets and `spawn_blocking`, which is the place for what blocks:
//! there are only as many threads for handlers as the machine has cores. In a component one thread
//! interleaves them, there is no tokio runtime, and only the SDK's own futures (and
//! what is made of them, such as joins and channels) may be awaited: nothing would
//! wake another one.
//!
//! # Two wires
//!
//! A native plugin talks in frames over stdin and stdout or, as with the stock `cipd`
//! client, over gRPC; the host's first bytes tell which, and the policy sees no
//! difference. The feature `grpc`, which is on by default, brings the latter; without it
//! such a host is refused with [`RunError::GrpcWire`]. A component has no use for it and
//! never carries it.
#![cfg_attr(
    all(feature = "grpc", not(target_arch = "wasm32")),
    doc = "What is below the run loop there is [`connection`]."
)]
//!
//! # The end
//!
//! When the host ends stdin, metadata calls that wait fail with
//! [`Code::CANCELLED`], the handlers' futures are dropped and [`run_plugin`] returns
//! `Ok(())`, even while a handler blocks its thread. Over gRPC a host may also end the
//! stream of admissions: the checks that run are still answered. Any failure ends the
//! plugin at once.
//!
//! # Panics
//!
//! A handler that panics answers its check with [`Code::ABORTED`] and
//! `panic in the admission handler: ...`. A native plugin lives on, unless it was built
//! with `panic = "abort"`: then it aborts after the message on stderr, without an answer,
//! and its undecided checks fail with `signal: aborted`. A component answers the check at
//! hand and then traps; its other undecided checks fail with the trap.
//!
//! # Logs
//!
//! [`run_plugin`] sends the events of [`tracing`] to the host, at the level that the host
//! asks for (info over gRPC, where it cannot ask), unless the program has set a global
//! subscriber of its own; [`log_layer`] is for that one. The lines of a handler arrive in
//! order and before its verdict. Fields of spans are not sent, and trace events neither:
//! the host has no such level. Lines are cut at 16 KiB.
//!
//! # stdin and stdout are the wire
//!
//! Natively the SDK takes both for itself before the first check: from then on
//! `println!` goes to stderr and stdin is empty, also for child processes. A component's
//! stdout cannot be redirected, so what is printed there breaks the protocol and ends the
//! plugin: use [`tracing`] or `eprintln!`.

mod at_hand;
mod calls;
mod conversation;
mod handler;
mod inbox;
mod info;
mod log;
mod outbox;
mod run;
mod verdict;

#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(target_arch = "wasm32")]
mod wasm;

#[cfg(not(target_arch = "wasm32"))]
use native as platform;
#[cfg(target_arch = "wasm32")]
use wasm as platform;

pub use admission_proto::{Admission, Code, Detail, HashAlgo, InstanceMetadata, ObjectRef, Status};
pub use handler::Handler;
pub use info::{InstanceInfo, MetadataPage};
pub use log::{log_layer, log_line};
#[cfg(all(feature = "grpc", not(target_arch = "wasm32")))]
pub use native::connection;
#[cfg(not(target_arch = "wasm32"))]
pub use native::run_plugin_async;
pub use run::{RunError, run_plugin};
