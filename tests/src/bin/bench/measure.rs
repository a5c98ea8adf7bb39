//! One measurement of one mode.

use std::time::{Duration, Instant};

use admission_host::Host;
use conformance::process::cpu_time;
use conformance::{GRACE, Mode, Pin, pin};

/// The results of one measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Checks in a second, if all are requested at once.
    pub(crate) rate: f64,
    /// CPU time of a check in host and plugin together.
    pub(crate) cpu: Duration,
    /// From the first request to the first verdict, including the launch.
    pub(crate) first: Duration,
    /// Median latency of checks that are requested one after the other.
    pub(crate) p50: Duration,
    /// 99th percentile of that latency.
    pub(crate) p99: Duration,
}

impl Figures {
    /// Starts a plugin that admits everything and checks `checks` pins at once; then starts
    /// another and checks `single` pins one after the other.
    ///
    /// # Errors
    ///
    /// If a check fails.
    pub(crate) async fn measure(
        host: &Host,
        mode: Mode,
        checks: u32,
        single: u32,
    ) -> anyhow::Result<Self> {
        let pins = pins(checks);
        let plugin = host.plugin(mode.fixture(""));
        let (cpu, started) = (cpu_time(), Instant::now());
        let promises: Vec<_> = pins.iter().map(|pin| plugin.check_admission(pin)).collect();
        let mut first = None;
        for promise in promises {
            promise.wait().await?;
            first.get_or_insert_with(|| started.elapsed());
        }
        plugin.close(GRACE).await;
        let took = started.elapsed();
        let cpu = cpu_time().saturating_sub(cpu) / checks;

        let plugin = host.plugin(mode.fixture(""));
        let mut times = Vec::new();
        for pin in &self::pins(single) {
            let requested = Instant::now();
            plugin.check_admission(pin).wait().await?;
            times.push(requested.elapsed());
        }
        plugin.close(GRACE).await;
        // The first check includes the launch.
        times.remove(0);
        times.sort_unstable();
        Ok(Self {
            rate: f64::from(checks) / took.as_secs_f64(),
            cpu,
            first: first.unwrap_or_default(),
            p50: percentile(&times, 50),
            p99: percentile(&times, 99),
        })
    }

    /// Returns the median of each figure.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> Duration| {
            let mut all: Vec<_> = runs.iter().map(figure).collect();
            all.sort_unstable();
            percentile(&all, 50)
        };
        let mut rates: Vec<_> = runs.iter().map(|run| run.rate).collect();
        rates.sort_unstable_by(f64::total_cmp);
        Self {
            rate: rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN),
            cpu: of(|run| run.cpu),
            first: of(|run| run.first),
            p50: of(|run| run.p50),
            p99: of(|run| run.p99),
        }
    }
}

fn pins(count: u32) -> Vec<Pin> {
    (0..count).map(|n| pin(&format!("allow/{n}"))).collect()
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get(sorted.len() * percent / 100)
        .copied()
        .unwrap_or_default()
}
