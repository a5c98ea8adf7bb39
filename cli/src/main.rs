//! `admit`: asks a CIPD admission plugin whether pins may be deployed.
#![allow(
    clippy::disallowed_methods,
    reason = "this is the rim: files and the environment are read here and nowhere below"
)]

mod args;
mod check;
mod cipd_config;
mod cipd_plugin;
mod error;
mod hint;
mod input;
mod interrupt;
mod output;
mod plugin;
mod repository;
mod service_url;
mod tally;
mod terminal;
mod token;

use std::env;
use std::process::ExitCode;

use admission_host::guard;
use clap::Parser as _;

use crate::args::{Cli, Command};
use crate::terminal::Terminal;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == plugin::GUARD) {
        return guard::run(arguments);
    }
    let cli = Cli::parse();
    match cli.command {
        Command::Check(args) => {
            let job = args.into_job().unwrap_or_else(|misuse| misuse.exit());
            let terminal = Terminal::new(job.terminal);
            check::run(job, &terminal).unwrap_or_else(|error| {
                terminal.say(&error::render(&error));
                ExitCode::from(check::FAILED)
            })
        }
        Command::CipdPlugin(args) => {
            let service = args.into_service().unwrap_or_else(|misuse| misuse.exit());
            match cipd_plugin::run(service) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{}", error::render(&error));
                    ExitCode::from(cipd_plugin::FAILED)
                }
            }
        }
    }
}
