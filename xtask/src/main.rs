//! What a developer and CI run: `cargo xtask demo`, `test`, `soak`, `churn` and `bench`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "this is a program for developers: it reads the environment, moves files and prints"
)]

mod cargo;
mod demo;
mod wasm_target;

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};

use crate::cargo::Cargo;

/// What a developer and CI run.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measures how fast checks are answered in each mode.
    Bench {
        /// Arguments of the measurement; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Launches and closes plugins, kills hosts, and looks for what is left of them.
    Churn {
        /// How often to launch and close a plugin in each mode.
        #[arg(long, default_value_t = 1_000)]
        cycles: u32,
        /// How many runs of `admit check` to kill, while launching, running and closing.
        #[arg(long, default_value_t = 201)]
        kills: u32,
    },
    /// Shows one policy, built as a program and as a WASI component, judging the same pins.
    Demo,
    /// Runs plugins at full rate, ends them in every way, and looks for what is lost.
    Soak {
        /// How long to run, in minutes.
        #[arg(long, default_value_t = 1.0, conflicts_with = "seconds")]
        minutes: f64,
        /// How long to run, in seconds.
        #[arg(long)]
        seconds: Option<u32>,
        /// Repeats the dice of a run before, which has printed them.
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = Cargo::from_environment().and_then(|cargo| match cli.task {
        Task::Bench { args } => bench(&cargo, &args),
        Task::Churn { cycles, kills } => churn(&cargo, cycles, kills),
        Task::Demo => demo::run(&cargo),
        Task::Soak {
            minutes,
            seconds,
            seed,
        } => {
            let length = seconds.map_or(minutes * 60.0, f64::from);
            soak(&cargo, length, seed)
        }
        Task::Test { args, binary_args } => test(&cargo, &args, &binary_args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn test(cargo: &Cargo, args: &[OsString], binary_args: &[OsString]) -> anyhow::Result<()> {
    // The tests build their plugins as components, too.
    wasm_target::ensure()?;
    let mut tests = cargo.command("test");
    tests.args(["--workspace", "--locked"]).args(args);
    if !binary_args.is_empty() {
        tests.arg("--").args(binary_args);
    }
    cargo.run(&mut tests)
}

fn soak(cargo: &Cargo, seconds: f64, seed: Option<u64>) -> anyhow::Result<()> {
    wasm_target::ensure()?;
    let [soak] = cargo.build_with_tests(["soak"])?;
    let mut soak = Command::new(soak);
    soak.arg("--seconds").arg(format!("{seconds:.0}"));
    if let Some(seed) = seed {
        soak.arg("--seed").arg(seed.to_string());
    }
    let status = soak.status().context("cannot run the soak")?;
    if !status.success() {
        bail!("the soak failed: {status}");
    }
    Ok(())
}

fn bench(cargo: &Cargo, args: &[OsString]) -> anyhow::Result<()> {
    wasm_target::ensure()?;
    let mut bench = Command::new(cargo.build("bench")?);
    let status = bench.args(args).status().context("cannot run the bench")?;
    if !status.success() {
        bail!("the bench failed: {status}");
    }
    Ok(())
}

fn churn(cargo: &Cargo, cycles: u32, kills: u32) -> anyhow::Result<()> {
    wasm_target::ensure()?;
    let [churn, admit] = cargo.build_with_tests(["churn", "admit"])?;
    let mut churn = Command::new(churn);
    churn.args(["--cycles", &cycles.to_string()]);
    churn.args(["--kills", &kills.to_string()]);
    let status = churn
        .arg("--admit")
        .arg(admit)
        .status()
        .context("cannot run the churn")?;
    if !status.success() {
        bail!("the churn failed: {status}");
    }
    Ok(())
}
