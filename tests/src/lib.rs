//! The harness in which one test body runs in every mode.
#![allow(
    clippy::disallowed_methods,
    reason = "tests read the plugins they run and write their own input"
)]

pub mod lifeline;
pub mod logs;
pub mod modes;
pub mod named;
pub mod own_guard;
pub mod peer;
pub mod process;
pub mod repositories;
pub mod service;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use admission_host::*;
pub use modes::Mode;

/// The grace of a close that is to be graceful.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long a test may take before it counts as hanging. Nothing is asserted of it.
const GUARD: Duration = Duration::from_secs(120);

/// Defines a test whose one body runs in every mode, once under the name of each.
#[macro_export]
macro_rules! in_every_mode {
    ($($tests:tt)*) => {
        $crate::in_modes! { { native guarded grpc component } $($tests)* }
    };
}

/// Defines a test whose one body runs in every mode in which plugins speak in frames: it
/// is about what cannot be said, or is said otherwise, over gRPC.
#[macro_export]
macro_rules! in_every_stdio_mode {
    ($($tests:tt)*) => {
        $crate::in_modes! { { native guarded component } $($tests)* }
    };
}

/// Defines tests whose bodies run in the modes that are named first.
#[macro_export]
macro_rules! in_modes {
    ($modes:tt $(async fn $name:ident($mode:ident: Mode) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn body($mode: Mode) $body

            $crate::test_in! $modes
        }
    )*};
}

/// Defines the tests of one body, which is called `body`.
#[macro_export]
macro_rules! test_in {
    ($($mode:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $mode() {
            $crate::guarded($crate::run_in!($mode)).await;
        }
    )*};
}

/// Runs `body` in a mode.
#[macro_export]
macro_rules! run_in {
    (native) => {
        body(Mode::Native)
    };
    (guarded) => {
        $crate::under_guard(env!("CARGO_BIN_EXE_guard"), body(Mode::Guarded))
    };
    (grpc) => {
        body(Mode::Grpc)
    };
    (component) => {
        body(Mode::Component)
    };
}

tokio::task_local! {
    /// The program that is the guard of native plugins.
    static PLUGINS_GUARD: &'static str;
}

/// Runs a test's body, in which every host has this program as its guard.
pub async fn under_guard(guard: &'static str, body: impl Future<Output = ()>) {
    PLUGINS_GUARD.scope(guard, body).await;
}

/// Runs a test's body, and panics rather than hang.
pub async fn guarded(body: impl Future<Output = ()>) {
    if tokio::time::timeout(GUARD, body).await.is_err() {
        panic!("the test hangs");
    }
}

/// Creates a host without metadata.
#[must_use]
pub fn host() -> Host {
    Host::new(options())
}

/// Creates a host whose metadata comes from `repository`.
#[must_use]
pub fn host_with(repository: impl Repository + 'static) -> Host {
    Host::new(options().repository(Arc::new(repository)))
}

/// Returns options for a host on this test's runtime, with a cache for components
/// that all tests share, and with the test's guard if it has one.
#[must_use]
pub fn options() -> HostOptions {
    let options = HostOptions::new(tokio::runtime::Handle::current())
        .component_cache(modes::component_cache());
    match PLUGINS_GUARD.try_get() {
        Ok(guard) => options.guard(guard, [""; 0]),
        Err(_) => options,
    }
}

/// Returns the pin of some instance of `package`.
#[must_use]
pub fn pin(package: &str) -> Pin {
    Pin::new(package, &"a".repeat(40)).expect("a valid package name")
}

/// Waits for the error that a check ends with.
///
/// # Panics
///
/// If the pin is admitted.
pub async fn error_of(promise: &Promise) -> CheckError {
    promise.wait().await.expect_err("the pin was admitted")
}

/// Waits for something that no event announces, such as a task that other threads see
/// end; the guard of the test bounds it.
pub async fn eventually(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Compiles the Rust code of the README as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
