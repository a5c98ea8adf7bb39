//! The command `cipd-plugin`: acts as the admission plugin of another client, and forwards
//! its checks to a policy.

mod forwarder;
mod log;

use std::io::{self, IsTerminal as _};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use admission_sdk::run_plugin_async;
use anyhow::{Context as _, bail};
use tokio::runtime::Handle;

use self::forwarder::Forwarder;
use crate::args::CipdPluginArgs;
use crate::plugin::{ConfiguredPlugin, start_runtime};
use crate::signals;

/// Exit status if the session with the client failed.
pub(crate) const FAILED: u8 = 1;

/// The version of this plugin that the client gets, for its logs.
const VERSION: &str = concat!("admit ", env!("CARGO_PKG_VERSION"));

/// Time that the policy has to exit after the client has closed stdin. Clients kill this
/// process after 5 s, and the policy must be gone before that.
const GRACE: Duration = Duration::from_secs(4);

/// Serves the client until it closes stdin.
///
/// A failure of the policy is not an error of this function: it fails the client's checks.
///
/// # Errors
///
/// If there is no client, or the session with it fails.
pub(crate) fn run(args: CipdPluginArgs) -> anyhow::Result<()> {
    if io::stdin().is_terminal() {
        bail!("stdin is a terminal: `admit cipd-plugin` must be started by a CIPD client");
    }
    let runtime = start_runtime()?;
    let result = runtime.block_on(serve(args));
    // The policy and the session are closed, so the runtime need not wait for them.
    runtime.shutdown_background();
    result
}

async fn serve(args: CipdPluginArgs) -> anyhow::Result<()> {
    // Ctrl-C reaches the client as well, which closes stdin when it is done.
    signals::survive_sigint().context("cannot listen for signals")?;
    log::install();
    let runtime = Handle::current();
    // The first check configures the policy. Earlier warnings would not reach the client.
    let forwarder = Arc::new(LazyLock::new(move || {
        Forwarder::new(ConfiguredPlugin::from_args(args.plugin), runtime)
    }));
    let result = run_plugin_async(VERSION, {
        let forwarder = Arc::clone(&forwarder);
        move |admission, info| {
            let forwarder = Arc::clone(&forwarder);
            async move { forwarder.check(admission, info).await }
        }
    })
    .await;
    if let Some(forwarder) = LazyLock::get(&forwarder) {
        forwarder.close(GRACE).await;
    }
    result.context("cannot serve the client")
}
