//! Runs plugins at full rate, ends them in every way, and compares every outcome with the
//! expected one. Fails if a verdict is lost, duplicate or wrong, or if this process grows.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "this is a program that observes its own process and prints a report"
)]

mod crash;
mod growth;
mod ledger;
mod round;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use admission_host::{
    Host, InstanceMetadata, ListMetadata, MetadataFuture, MetadataPage, Repository,
};
use clap::Parser;
use conformance::{Mode, options, own_guard};
use futures_util::future::join_all;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::crash::Delays;
use crate::growth::Sample;
use crate::ledger::Ledger;

/// Parts of the run. After the last part, the process must not have more memory, threads or
/// descriptors than after the parts of the first half.
const PARTS: u32 = 8;

/// Crashes that are measured after each part, with and without a grandchild.
const CRASHES: usize = 5;

/// Runs plugins at full rate, ends them in every way, and fails if a verdict is lost.
#[derive(Parser)]
#[command(name = "soak")]
struct Arguments {
    /// Duration in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(4..))]
    seconds: u32,
    /// Seed of the random choices; every run prints its seed.
    #[arg(long, default_value_t = rand::random())]
    seed: u64,
}

/// Replies to every call with one entry.
struct AlwaysOne;

impl Repository for AlwaysOne {
    fn list_metadata(&self, _: ListMetadata) -> MetadataFuture<'_> {
        let page = MetadataPage::new(vec![InstanceMetadata::new("key", "value")], "");
        Box::pin(std::future::ready(Ok(page)))
    }
}

/// The plugins of one mode, one after the other. Each lane has its own random numbers, so that
/// a seed repeats the same plugins.
struct Lane {
    host: Host,
    mode: Mode,
    random: StdRng,
    ledger: Ledger,
}

impl Lane {
    async fn run(&mut self, until: Instant) {
        let Self { host, mode, .. } = self;
        while Instant::now() < until {
            let number = self.ledger.plugins;
            round::run(host, *mode, number, &mut self.random, &mut self.ledger).await;
        }
    }
}

fn main() -> ExitCode {
    if let Some(ended) = own_guard::run_if_guard() {
        return ended;
    }
    soak(&Arguments::parse())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn soak(arguments: &Arguments) -> ExitCode {
    println!(
        "soaking for {} s with --seed {}",
        arguments.seconds, arguments.seed
    );
    let host = |mode| own_guard::host(mode, options().repository(Arc::new(AlwaysOne)));
    let mut lanes: Vec<_> = (0..)
        .zip(Mode::ALL)
        .map(|(n, mode)| Lane {
            host: host(mode),
            mode,
            random: StdRng::seed_from_u64(arguments.seed ^ n),
            ledger: Ledger::default(),
        })
        .collect();
    let (unguarded, guarded) = (host(Mode::Native), host(Mode::Guarded));
    let mut delays = [
        ("a crash", &unguarded, ""),
        (
            "a crash while a grandchild holds the pipes",
            &unguarded,
            "with-grandchild",
        ),
        ("the same under a guard", &guarded, "with-grandchild"),
    ]
    .map(|crash| (crash, Delays::default()));
    let mut samples = Vec::new();
    let part = Duration::from_secs(arguments.seconds.into()) / PARTS;
    for _ in 0..PARTS {
        let until = Instant::now() + part;
        join_all(lanes.iter_mut().map(|lane| lane.run(until))).await;
        for _ in 0..CRASHES {
            for ((_, host, argument), delays) in &mut delays {
                delays.measure(host, argument).await;
            }
        }
        let sample = Sample::take().await;
        println!("    {sample}");
        samples.push(sample);
    }
    for lane in &lanes {
        println!("{:?}: {}", lane.mode, lane.ledger);
    }
    for ((what, ..), delays) in &mut delays {
        if let Some((median, longest)) = delays.summary() {
            println!(
                "time from {what} to the error of the check: {median:.1?} (median), {longest:.1?} (longest)"
            );
        }
    }
    verdict(&lanes, &samples)
}

fn verdict(lanes: &[Lane], samples: &[Sample]) -> ExitCode {
    let (first_half, second_half) = samples.split_at(samples.len() / 2);
    let growth = growth::between(first_half, second_half);
    growth
        .iter()
        .for_each(|growth| println!("growth: {growth}"));
    if growth.is_empty() && lanes.iter().all(|lane| lane.ledger.is_clean()) {
        println!("no verdict lost, duplicate or wrong; no growth");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
