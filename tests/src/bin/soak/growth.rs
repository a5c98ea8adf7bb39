//! Memory, threads, descriptors and children of this process during the run.

use std::fmt;
use std::fs;
use std::time::Duration;

use conformance::process::Holdings;

/// Memory that may be added after the first half of the run and is not growth, because an
/// allocator keeps the memory of the peak.
const SLACK_KIB: u64 = 48 << 10;

/// A sample of this process while no plugin runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    holdings: Holdings,
    memory_kib: u64,
}

impl Sample {
    /// Waits until no children are left, for 2 s at most, and takes a sample.
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

/// Describes by how much the last sample exceeds the maximum of the earlier ones.
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
    .map(|(what, now, most)| format!("{now} {what}, expected at most {most}"))
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
        .expect("the kernel reports it")
}
