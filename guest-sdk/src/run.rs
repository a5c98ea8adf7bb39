//! Runs a plugin: the entry points of the SDK.

use crate::session::Session;
use crate::{Handler, RunError, log, platform};

/// Runs the plugin until the host closes it.
///
/// Takes over stdin and stdout, sends `version` to the host for its logs, and passes each
/// admission to `handler`. Return the result from `main`, which prints an error and exits with
/// status 1.
///
/// # Errors
///
/// Returns a [`RunError`] at once if the host breaks the protocol, cannot be reached or written
/// to, or ends the stream of admissions with an error. Also fails if the plugin has run before,
/// and inside a tokio runtime,
#[cfg_attr(not(target_arch = "wasm32"), doc = "where [`run_plugin_async`] works.")]
#[cfg_attr(target_arch = "wasm32", doc = "which only a native plugin can have.")]
pub fn run_plugin(version: &str, handler: impl Handler) -> Result<(), RunError> {
    #[cfg(not(target_arch = "wasm32"))]
    if tokio::runtime::Handle::try_current().is_ok() {
        return Err(RunError::InsideRuntime);
    }
    let session = Session::start(version)?;
    log::install();
    platform::run(session, handler)
}

/// Runs the plugin until the host closes it, without blocking the calling thread.
///
/// Behaves like [`run_plugin`], for a program with its own tokio runtime. The handler still
/// runs on the runtime of the SDK, so the caller's runtime may have one thread and may be busy.
///
/// # Errors
///
/// Like [`run_plugin`], but never [`RunError::InsideRuntime`].
///
/// # Cancel safety
///
/// Dropping the future ends the plugin as the end of stdin does. The plugin cannot run again.
#[cfg(not(target_arch = "wasm32"))]
pub async fn run_plugin_async(version: &str, handler: impl Handler) -> Result<(), RunError> {
    let session = Session::start(version)?;
    log::install();
    platform::run_on_thread(session, handler).await
}
