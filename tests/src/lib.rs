//! The harness in which one test body runs in every mode.
#![allow(
    clippy::disallowed_methods,
    reason = "tests read the plugins that they run and write their input"
)]

pub mod liveness_pipe;
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

/// The grace that tests give a plugin that exits by itself.
pub const GRACE: Duration = Duration::from_secs(5);

/// A test that takes longer counts as hung. No test asserts how long it takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(600);

/// Defines tests whose bodies run in every mode. Each mode is a separate test.
#[macro_export]
macro_rules! in_every_mode {
    ($($tests:tt)*) => {
        $crate::in_modes! { { native guarded grpc component } $($tests)* }
    };
}

/// Defines tests whose bodies run in every mode of the stdio wire, for behaviour that the gRPC
/// wire does not have.
#[macro_export]
macro_rules! in_every_stdio_mode {
    ($($tests:tt)*) => {
        $crate::in_modes! { { native guarded component } $($tests)* }
    };
}

/// Defines tests whose bodies run in the given modes.
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

/// Defines a test for each mode that runs the function `body`.
#[macro_export]
macro_rules! test_in {
    ($($mode:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $mode() {
            $crate::guarded($crate::run_in!($mode)).await;
        }
    )*};
}

/// Runs the function `body` in a mode.
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
    /// Program of the guard of native plugins.
    static PLUGINS_GUARD: &'static str;
}

/// Runs the body of a test. Every host in it uses this program as its guard.
pub async fn under_guard(guard: &'static str, body: impl Future<Output = ()>) {
    PLUGINS_GUARD.scope(guard, body).await;
}

/// Runs the body of a test, with a timeout.
///
/// # Panics
///
/// If the body panics or hangs.
pub async fn guarded(body: impl Future<Output = ()>) {
    if tokio::time::timeout(TEST_TIMEOUT, body).await.is_err() {
        panic!("the test hangs");
    }
}

/// Creates a host without a repository.
#[must_use]
pub fn host() -> Host {
    Host::new(options())
}

/// Creates a host with this repository.
#[must_use]
pub fn host_with(repository: impl Repository + 'static) -> Host {
    Host::new(options().repository(Arc::new(repository)))
}

/// Returns options for a host on the runtime of this test, with the component cache of the
/// test process, and with the guard of this test if it has one.
#[must_use]
pub fn options() -> HostOptions {
    let options = HostOptions::new(tokio::runtime::Handle::current())
        .component_cache(modes::component_cache());
    match PLUGINS_GUARD.try_get() {
        Ok(guard) => options.guard(guard, [""; 0]),
        Err(_) => options,
    }
}

/// Returns a pin of `package`.
#[must_use]
pub fn pin(package: &str) -> Pin {
    Pin::new(package, &"a".repeat(40)).expect("a valid package name")
}

/// Waits for the error of a check.
///
/// # Panics
///
/// If the pin is admitted.
pub async fn error_of(promise: &Promise) -> CheckError {
    promise.wait().await.expect_err("the pin was admitted")
}

/// Polls a condition that no event announces. The timeout of the test limits the wait.
pub async fn eventually(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Compiles the Rust code of the README as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
