//! Tasks for developers and CI: `cargo xtask demo`, `test`, `ci`, `nightly` and others.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "this is a program for developers: it reads the environment, moves files and prints"
)]

mod bench;
mod cargo;
mod demo;
#[cfg(feature = "generate")]
mod generate;
mod one_build;
mod parts;
mod wasm_target;

use std::env;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use crate::cargo::Cargo;

/// Tasks for developers and CI.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measures the speed of checks in each mode.
    Bench(Bench),
    /// Launches and closes plugins, kills hosts, and fails if a process or descriptor is left.
    Churn {
        /// Launches of a plugin in each mode.
        #[arg(long, default_value_t = 1_000)]
        cycles: u32,
        /// Runs of `admit check` to kill while they launch, run or close their plugin.
        #[arg(long, default_value_t = 201)]
        kills: u32,
    },
    /// Runs everything that must pass before a change is merged.
    Ci {
        /// Parts to run; all if none is named.
        parts: Vec<String>,
    },
    /// Runs one policy, built as a program and as a WASI component, on the same pins.
    Demo,
    /// Generates the messages and services of the `.proto` files in `proto/schema`.
    Generate,
    /// Runs the tests that take hours, and prints a summary.
    Nightly(Nightly),
    /// Runs plugins at full rate, ends them in every way, and fails if a verdict is lost.
    Soak {
        /// Duration in minutes.
        #[arg(long, default_value_t = 1.0, conflicts_with = "seconds")]
        minutes: f64,
        /// Duration in seconds.
        #[arg(long)]
        seconds: Option<u32>,
        /// Seed of an earlier run, to repeat its random choices.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Runs every test, with the arguments of `cargo test`.
    #[command(disable_help_flag = true)]
    Test {
        /// More arguments for `cargo test`.
        #[arg(allow_hyphen_values = true)]
        args: Vec<OsString>,
        /// Arguments for the test binaries.
        #[arg(last = true, allow_hyphen_values = true)]
        binary_args: Vec<OsString>,
    },
}

#[derive(clap::Args)]
struct Bench {
    /// Older commit to compare with: both are built and run in turns. Fails if a median is
    /// more than 5 % worse and outside of the older commit's quartiles.
    #[arg(long, value_name = "COMMIT")]
    against: Option<String>,
    /// Measurements of each mode.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Checks that are requested at once.
    #[arg(long)]
    checks: Option<u32>,
    /// Checks that are requested one after the other.
    #[arg(long)]
    single: Option<u32>,
}

#[derive(clap::Args)]
struct Nightly {
    /// Parts to run; all if none is named.
    parts: Vec<String>,
    /// Duration of the soak in minutes.
    #[arg(long, default_value_t = 60.0)]
    soak_minutes: f64,
    /// Launches of a plugin in each mode, and a fifth as many kills of `admit check`.
    #[arg(long, default_value_t = 10_000)]
    cycles: u32,
    /// Rounds of the whole test suite, on an idle machine and again on an overloaded one.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Random sequences of operations on the state of a plugin.
    #[arg(long, default_value_t = 100_000)]
    sequences: u32,
    /// Older commit to compare the speed with; without it, that part is skipped.
    #[arg(long, value_name = "COMMIT")]
    against: Option<String>,
}

fn main() -> ExitCode {
    let done = match env::var_os(one_build::DOCS) {
        Some(docs) => one_build::run_rustdoc(docs),
        None => run(Cli::parse().task),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let cargo = Cargo::from_environment()?;
    match task {
        Task::Bench(options) => bench(&cargo, &options),
        Task::Churn { cycles, kills } => churn(&cargo, cycles, kills),
        Task::Ci { parts } => parts::ci(&cargo, &parts),
        Task::Demo => demo::run(&cargo),
        Task::Generate => generate(&cargo),
        Task::Nightly(options) => parts::nightly(&cargo, &options),
        Task::Soak {
            minutes,
            seconds,
            seed,
        } => {
            let length = seconds.map_or(minutes * 60.0, f64::from);
            soak(&cargo, length, seed)
        }
        Task::Test { args, binary_args } => test(&cargo, &args, &binary_args),
    }
}

#[cfg(feature = "generate")]
fn generate(cargo: &Cargo) -> anyhow::Result<()> {
    generate::generate(cargo.root())
}

/// Runs this task again, built with the code generators.
#[cfg(not(feature = "generate"))]
fn generate(cargo: &Cargo) -> anyhow::Result<()> {
    cargo::run(&mut cargo.command("run --package xtask --features generate --locked -- generate"))
}

fn test(cargo: &Cargo, args: &[OsString], binary_args: &[OsString]) -> anyhow::Result<()> {
    // The tests build their plugins as components, too.
    wasm_target::ensure()?;
    let mut tests = cargo.command("test --workspace --locked");
    tests.args(args);
    if !binary_args.is_empty() {
        tests.arg("--").args(binary_args);
    }
    cargo::run(&mut tests)
}

fn soak(cargo: &Cargo, seconds: f64, seed: Option<u64>) -> anyhow::Result<()> {
    wasm_target::ensure()?;
    let mut soak = Command::new(cargo.build_tests()?.binary("soak")?);
    soak.arg("--seconds").arg(format!("{seconds:.0}"));
    if let Some(seed) = seed {
        soak.arg("--seed").arg(seed.to_string());
    }
    cargo::run(&mut soak)
}

fn churn(cargo: &Cargo, cycles: u32, kills: u32) -> anyhow::Result<()> {
    wasm_target::ensure()?;
    let built = cargo.build_tests()?;
    let mut churn = Command::new(built.binary("churn")?);
    churn.args(["--cycles", &cycles.to_string()]);
    churn.args(["--kills", &kills.to_string()]);
    cargo::run(churn.arg("--admit").arg(built.binary("admit")?))
}

fn bench(cargo: &Cargo, options: &Bench) -> anyhow::Result<()> {
    wasm_target::ensure()?;
    let mut args = Vec::new();
    for (name, value) in [("--checks", options.checks), ("--single", options.single)] {
        if let Some(value) = value {
            args.extend([name.into(), value.to_string().into()]);
        }
    }
    match &options.against {
        Some(commit) => bench::compare(cargo, commit, options.runs, &args),
        None => {
            let mut bench = Command::new(cargo.build_bench()?);
            cargo::run(bench.args(args).args(["--runs", &options.runs.to_string()]))
        }
    }
}
