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
use std::time::{Duration, Instant};

use admission_host::{Host, InstanceMetadata, ListMetadata, Listing, MetadataPage, Repository};
use clap::Parser;
use conformance::{Mode, host_with};
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
    fn list_metadata(&self, _: ListMetadata) -> Listing<'_> {
        let page = MetadataPage::new(vec![InstanceMetadata::new("key", "value")], "");
        Box::pin(std::future::ready(Ok(page)))
    }
}

/// One mode, with dice of its own so that a seed gives the same plugins again.
struct Lane {
    mode: Mode,
    random: StdRng,
    ledger: Ledger,
}

impl Lane {
    async fn run(&mut self, host: &Host, until: Instant) {
        while Instant::now() < until {
            let number = self.ledger.plugins;
            round::run(host, self.mode, number, &mut self.random, &mut self.ledger).await;
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    println!(
        "soaking for {} s with --seed {}",
        arguments.seconds, arguments.seed
    );
    let host = host_with(AlwaysOne);
    let mut lanes: Vec<_> = (0..)
        .zip(Mode::ALL)
        .map(|(n, mode)| Lane {
            mode,
            random: StdRng::seed_from_u64(arguments.seed ^ n),
            ledger: Ledger::default(),
        })
        .collect();
    let (mut alone, mut with_grandchild) = (Delays::default(), Delays::default());
    let mut samples = Vec::new();
    let part = Duration::from_secs(arguments.seconds.into()) / PARTS;
    for _ in 0..PARTS {
        let until = Instant::now() + part;
        join_all(lanes.iter_mut().map(|lane| lane.run(&host, until))).await;
        for _ in 0..CRASHES {
            alone.measure(&host, "").await;
            with_grandchild.measure(&host, "with-grandchild").await;
        }
        let sample = Sample::take().await;
        println!("    {sample}");
        samples.push(sample);
    }
    for lane in &lanes {
        println!("{:?}: {}", lane.mode, lane.ledger);
    }
    for (what, delays) in [
        ("of a crash", &mut alone),
        (
            "of a crash while a grandchild holds the pipes",
            &mut with_grandchild,
        ),
    ] {
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
