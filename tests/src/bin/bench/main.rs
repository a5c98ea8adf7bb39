//! Measures the speed of checks in each mode, in turns, so that other load on the machine
//! affects all modes alike.
//!
//! `cargo xtask bench --against COMMIT` parses the table that this prints and that older
//! commits print.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "this is a program that observes its own process and prints a report"
)]

mod measure;

use std::process::ExitCode;

use clap::Parser;
use conformance::{Mode, options, own_guard};

use crate::measure::Figures;

/// Measures the speed of checks in each mode.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Checks that are requested at once.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    checks: u32,
    /// Checks that are requested one after the other.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    single: u32,
    /// Measurements of each mode; the figures are medians.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

fn main() -> anyhow::Result<ExitCode> {
    if let Some(ended) = own_guard::run_if_guard() {
        return Ok(ended);
    }
    bench(&Arguments::parse())?;
    Ok(ExitCode::SUCCESS)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn bench(arguments: &Arguments) -> anyhow::Result<()> {
    let hosts = Mode::ALL.map(|mode| (mode, own_guard::host(mode, options())));
    // This run is not measured: it compiles the component and starts the gRPC server.
    for (mode, host) in &hosts {
        Figures::measure(host, *mode, 100, 1).await?;
    }
    let mut figures: Vec<(Mode, Vec<Figures>)> =
        hosts.iter().map(|(mode, _)| (*mode, Vec::new())).collect();
    for _ in 0..arguments.runs {
        for ((mode, host), (_, runs)) in hosts.iter().zip(&mut figures) {
            runs.push(Figures::measure(host, *mode, arguments.checks, arguments.single).await?);
        }
    }
    println!(
        "{} checks at once, launch and close included; {} one after the other; medians of {} runs",
        arguments.checks, arguments.single, arguments.runs
    );
    println!(
        "{:<10} {:>10} {:>8} {:>10} {:>12} {:>10} {:>10}",
        "mode", "checks/s", "ratio", "CPU/check", "first after", "p50", "p99"
    );
    let mut native = None;
    for (mode, runs) in &figures {
        let median = Figures::median(runs);
        let native = *native.get_or_insert(median.rate);
        println!(
            "{:<10} {:>10.0} {:>8.2} {:>10.1?} {:>12.1?} {:>10.1?} {:>10.1?}",
            mode.test_name(),
            median.rate,
            median.rate / native,
            median.cpu,
            median.first,
            median.p50,
            median.p99
        );
    }
    Ok(())
}
