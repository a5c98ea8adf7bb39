//! Launches and closes plugins, one after the other.

use std::time::{Duration, Instant};

use admission_host::{Exit, Host};
use anyhow::{Context as _, bail, ensure};
use conformance::liveness_pipe::LivenessPipe;
use conformance::process::Holdings;
use conformance::{GRACE, Mode, pin};
use tokio::time::{sleep, timeout};

use crate::litter;

/// A process or descriptor that is still there after this time counts as left.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Launches and closes a plugin `count` times.
///
/// # Errors
///
/// If a check fails, if a plugin does not exit with success, or if this process has more
/// children, threads or descriptors after the last cycle than after the first.
pub(crate) async fn run(host: &Host, mode: Mode, count: u32) -> anyhow::Result<()> {
    let started = Instant::now();
    cycle(host, mode).await?;
    let baseline = wait_for_stable_counts().await?;
    for number in 1..count {
        cycle(host, mode)
            .await
            .with_context(|| format!("{mode:?}: cycle {number}"))?;
    }
    let returned = async {
        while !is_within(&Holdings::now(), &baseline) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(TIMEOUT, returned).await.is_err() {
        let left = Holdings::now();
        bail!("{mode:?}: after the last cycle: {left}; after the first: {baseline}");
    }
    println!(
        "{mode:?}: {count} launched and closed in {:.1?}; after the last: {}",
        started.elapsed(),
        Holdings::now()
    );
    Ok(())
}

async fn cycle(host: &Host, mode: Mode) -> anyhow::Result<()> {
    let mut liveness = LivenessPipe::new();
    let plugin = host.plugin(litter::fixture(mode, &liveness));
    plugin.check_admission(&pin("allow/a")).wait().await?;
    let exit = plugin.close(GRACE).await;
    ensure!(
        exit == Exit::Success,
        "the plugin did not shut down cleanly: {exit}"
    );
    let gone = async {
        while liveness.has_writer() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(TIMEOUT, gone)
        .await
        .context("a process of the plugin is still running")
}

/// Waits until there are no children and two samples are equal.
async fn wait_for_stable_counts() -> anyhow::Result<Holdings> {
    let stable = async {
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
    timeout(TIMEOUT, stable)
        .await
        .context("threads and descriptors keep changing after the first cycle")
}

fn is_within(now: &Holdings, baseline: &Holdings) -> bool {
    now.children == 0 && now.threads <= baseline.threads && now.descriptors <= baseline.descriptors
}
