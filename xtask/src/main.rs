//! What a developer and CI run: `cargo xtask test` and `cargo xtask demo`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "this is a program for developers: it reads the environment, moves files and prints"
)]

mod cargo;
mod demo;
mod wasm_target;

use std::ffi::OsString;
use std::process::ExitCode;

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
    /// Shows one policy, built as a program and as a WASI component, judging the same pins.
    Demo,
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
        Task::Demo => demo::run(&cargo),
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
