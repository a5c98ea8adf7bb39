//! Plugins that are launched and closed, one after the other.

use std::time::{Duration, Instant};

use admission_host::{Exit, Host, Plugin};
use anyhow::{Context as _, bail, ensure};
use conformance::lifeline::Lifeline;
use conformance::process::Holdings;
use conformance::{GRACE, Mode, pin};
use tokio::time::{sleep, timeout};

use crate::litter;

/// How long what was ended may take to be gone before it counts as left.
const PATIENCE: Duration = Duration::from_secs(30);

/// Launches and closes the plugin `count` times.
///
/// # Errors
///
/// If a plugin does not answer or end as it should, or if after the last cycle this
/// process holds more than after the first.
pub(crate) async fn run(host: &Host, mode: Mode, count: u32) -> anyhow::Result<()> {
    let started = Instant::now();
    cycle(host, mode).await?;
    let baseline = settled().await?;
    for number in 1..count {
        cycle(host, mode)
            .await
            .with_context(|| format!("{mode:?}: cycle {number}"))?;
    }
    let back = async {
        while !is_within(&Holdings::now(), &baseline) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(PATIENCE, back).await.is_err() {
        let left = Holdings::now();
        bail!("{mode:?}: left {left}; after the first cycle: {baseline}");
    }
    println!(
        "{mode:?}: {count} launched and closed in {:.1?}; left as after the first: {}",
        started.elapsed(),
        Holdings::now()
    );
    Ok(())
}

async fn cycle(host: &Host, mode: Mode) -> anyhow::Result<()> {
    let mut lifeline = Lifeline::new();
    let plugin = host.plugin(litter::fixture(mode, &lifeline));
    plugin.check_admission(&pin("allow/a")).wait().await?;
    let exit = plugin.close(GRACE).await;
    ensure!(exit == Exit::Success, "it did not end well: {exit}");
    let gone = async {
        while lifeline.is_held() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, gone)
        .await
        .context("a process of the plugin is left")
}

/// Waits until no process is left, and nothing else changes between two looks.
async fn settled() -> anyhow::Result<Holdings> {
    let settled = async {
        let mut before = Holdings::now();
        loop {
            sleep(Duration::from_millis(100)).await;
            let now = Holdings::now();
            if now == before && now.children == 0 {
                return now;
            }
            before = now;
        }
    };
    timeout(PATIENCE, settled)
        .await
        .context("what the first cycle left does not settle")
}

fn is_within(now: &Holdings, baseline: &Holdings) -> bool {
    now.children == 0 && now.threads <= baseline.threads && now.descriptors <= baseline.descriptors
}
