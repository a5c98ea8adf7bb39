//! What this process holds in the course of the run.

use std::fmt;
use std::fs;
use std::time::Duration;

use conformance::process::Holdings;

/// How much more memory than after the first part of the run is still no growth:
/// allocators keep what they had at the peak.
const SLACK_KIB: u64 = 48 << 10;

/// A look at this process while no plugin runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    holdings: Holdings,
    memory_kib: u64,
}

impl Sample {
    /// Waits until nothing of the plugins is left, as far as it will, and looks.
    pub(crate) async fn take() -> Self {
        let mut sample = Self::now();
        for _ in 0..100 {
            if sample.holdings.children == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            sample = Self::now();
        }
        sample
    }

    fn now() -> Self {
        Self {
            holdings: Holdings::now(),
            memory_kib: resident_kib(),
        }
    }
}

/// Says what the last sample holds beyond the most that the earlier ones did.
pub(crate) fn between(earlier: &[Sample], later: &[Sample]) -> Vec<String> {
    let Some(last) = later.last() else {
        return vec!["there are no samples".to_owned()];
    };
    let most = |count: fn(&Sample) -> u64| earlier.iter().map(count).max().unwrap_or_default();
    let descriptors = |sample: &Sample| sample.holdings.descriptors as u64;
    let threads = |sample: &Sample| sample.holdings.threads as u64;
    [
        ("processes", last.holdings.children as u64, 0),
        ("descriptors", descriptors(last), most(descriptors)),
        ("threads", threads(last), most(threads)),
        (
            "KiB of memory",
            last.memory_kib,
            most(|sample| sample.memory_kib) + SLACK_KIB,
        ),
    ]
    .into_iter()
    .filter(|(_, now, most)| now > most)
    .map(|(what, now, most)| format!("{now} {what}, {most} at most were expected"))
    .collect()
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB, {}", self.memory_kib >> 10, self.holdings)
    }
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("procfs is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("the kernel tells it")
}
