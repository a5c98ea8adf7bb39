//! The plugin that only calls the host: what is below the loop of admissions.

use std::process::exit;
use std::time::Duration;

use admission_sdk::connection::{Connection, Severity};
use anyhow::bail;
use tokio::runtime::Builder;
use tokio::time::sleep;

use crate::CRASH;

/// How long a stuck plugin lives on after it was told to stop.
const STUCK: Duration = Duration::from_secs(30);

/// How long after its call a plugin crashes.
const UNTIL_CRASH: Duration = Duration::from_millis(100);

pub(crate) fn run(mode: &str) -> anyhow::Result<()> {
    if mode == "CRASHING_ON_START" {
        exit(CRASH);
    }
    let runtime = Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(talk(mode))
}

async fn talk(mode: &str) -> anyhow::Result<()> {
    let connection = Connection::open().await?;
    // A host that has heard this may stop before it answers, and the mode goes on.
    let _ = connection.resolve_admission(mode, Ok(())).await;
    match mode {
        "WAIT" => connection.ended().await,
        "STUCK_IN_TERMINATION" => {
            connection.ended().await;
            sleep(STUCK).await;
        }
        "CRASHING_AFTER_RPC" => {
            sleep(UNTIL_CRASH).await;
            exit(CRASH);
        }
        "LOG_STUFF_AND_EXIT" => {
            connection.log(Severity::Info, "Info").await?;
            connection.log(Severity::Warning, "Warning").await?;
            connection.log(Severity::Error, "Error").await?;
        }
        numbered if numbered.starts_with("NUM_") => connection.ended().await,
        other => bail!("a basic plugin has no mode {other}"),
    }
    Ok(())
}
