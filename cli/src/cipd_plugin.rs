//! The command `cipd-plugin`: the admission plugin of another client, for which a plugin
//! of our own judges.

mod judge;
mod log;
mod upstream;
mod verdict;

use std::io::{self, IsTerminal as _};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use admission_sdk::run_plugin_async;
use anyhow::{Context as _, bail};
use tokio::runtime::{self, Handle};

use crate::args::Service;
use crate::interrupt;
use judge::Judge;

/// Exit status when the conversation with the client could not begin or broke off.
pub(crate) const FAILED: u8 = 1;

/// What the client is told of this program; for its logs.
const VERSION: &str = concat!("admit ", env!("CARGO_PKG_VERSION"));

/// How long the plugin may take to finish once the client has ended stdin. Clients kill
/// after 5 s, and by then nothing of it may be left.
const GRACE: Duration = Duration::from_secs(4);

/// Worker threads: one for the plugin's conversation and one for everything else. The SDK
/// has its own for the conversation with the client.
const WORKERS: usize = 2;

/// Judges what the client asks until it ends stdin.
///
/// What is wrong with the plugin is no error here: it is the answer to the client's checks.
///
/// # Errors
///
/// If there is no client, or the conversation with it breaks off.
pub(crate) fn run(service: Service) -> anyhow::Result<()> {
    if io::stdin().is_terminal() {
        bail!("stdin is a terminal: `admit cipd-plugin` is to be started by a CIPD client");
    }
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let ended = runtime.block_on(serve(service));
    // Everything was closed.
    runtime.shutdown_background();
    ended
}

async fn serve(service: Service) -> anyhow::Result<()> {
    // Ctrl-C is meant for the client, which ends stdin when it is done.
    interrupt::outlive_interrupts().context("cannot listen for signals")?;
    log::install();
    let runtime = Handle::current();
    // Made by the first check, when there is a client that hears what is logged.
    let judge = Arc::new(LazyLock::new(move || Judge::new(service, runtime)));
    let ended = run_plugin_async(VERSION, {
        let judge = Arc::clone(&judge);
        move |admission, info| {
            let judge = Arc::clone(&judge);
            async move { judge.judge(admission, info).await }
        }
    })
    .await;
    if let Some(judge) = LazyLock::get(&judge) {
        judge.close(GRACE).await;
    }
    ended.context("cannot serve the client")
}
