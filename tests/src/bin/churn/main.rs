//! Launches and closes plugins that leave processes behind. Then kills hosts while they run such
//! plugins. Fails if a process or descriptor is left.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "this is a program that observes its own process and prints a report"
)]

mod cycles;
mod kills;
mod litter;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use conformance::{Mode, options, own_guard};

/// Launches and closes plugins, kills hosts, and fails if a process or descriptor is left.
#[derive(Parser)]
#[command(name = "churn")]
struct Arguments {
    /// Launches of a plugin in each mode.
    #[arg(long, default_value_t = 1_000)]
    cycles: u32,
    /// Runs of `admit check` to kill: a third each while its plugin is launching, running and
    /// closing.
    #[arg(long, default_value_t = 201)]
    kills: u32,
    /// The `admit` to kill.
    #[arg(long)]
    admit: PathBuf,
}

fn main() -> ExitCode {
    if let Some(ended) = own_guard::run_if_guard() {
        return ended;
    }
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let launched = runtime.block_on(async {
        for mode in Mode::ALL {
            cycles::run(&own_guard::host(mode, options()), mode, arguments.cycles).await?;
        }
        Ok(())
    });
    // The runtime must not reap the processes that this one adopts from killed hosts.
    drop(runtime);
    match launched.and_then(|()| kills::run(&arguments.admit, arguments.kills)) {
        Ok(()) => {
            println!("nothing is left");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
