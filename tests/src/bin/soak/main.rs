//! Runs plugins at full rate, ends them in every way, and keeps a ledger of what each
//! check must answer. Fails on any verdict lost, doubled or wrong, and on growth.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "this is a program that looks at itself and reports"
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

/// Parts of the run. What is held after the last may be what was held in the first half.
const PARTS: u32 = 8;

/// Crashes that are timed after each part, with and without a grandchild.
const CRASHES: usize = 5;

/// Runs plugins at full rate, ends them in every way, and looks for what is lost.
#[derive(Parser)]
#[command(name = "soak")]
struct Arguments {
    /// How long to run, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(4..))]
    seconds: u32,
    /// Where the dice start; a run prints its own.
    #[arg(long, default_value_t = rand::random())]
    seed: u64,
}

/// Answers every call with one entry.
struct AlwaysOne;

impl Repository for AlwaysOne {
    fn list_metadata(&self, _: ListMetadata) -> MetadataFuture<'_> {
        let page = MetadataPage::new(vec![InstanceMetadata::new("key", "value")], "");
        Box::pin(std::future::ready(Ok(page)))
    }
}

/// One mode, with dice of its own so that a seed gives the same plugins again.
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
        ("of a crash", &unguarded, ""),
        (
            "of a crash while a grandchild holds the pipes",
            &unguarded,
            "with-grandchild",
        ),
        ("of the same under a guard", &guarded, "with-grandchild"),
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
            println!("waiters learned {what} after {median:.1?} (median), {longest:.1?} (longest)");
        }
    }
    verdict(&lanes, &samples)
}

fn verdict(lanes: &[Lane], samples: &[Sample]) -> ExitCode {
    let (first_half, second_half) = samples.split_at(samples.len() / 2);
    let growth = growth::between(first_half, second_half);
    growth.iter().for_each(|growth| println!("grown: {growth}"));
    if growth.is_empty() && lanes.iter().all(|lane| lane.ledger.is_clean()) {
        println!("nothing lost, doubled, wrong or grown");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
