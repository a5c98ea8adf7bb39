//! `admit`: asks a CIPD admission plugin whether pins may be deployed.
#![allow(
    clippy::disallowed_methods,
    reason = "only this crate reads files and the environment"
)]

mod args;
mod check;
mod cipd_config;
mod cipd_plugin;
mod error;
mod hint;
mod input;
mod output;
mod platform;
mod plugin;
mod repository;
mod signals;
mod summary;
mod terminal;
mod token;

use std::env;
use std::process::ExitCode;

use admission_host::guard;

use crate::args::{Cli, Command};
use crate::terminal::Terminal;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == plugin::GUARD) {
        return guard::run(arguments);
    }
    let cli = Cli::from_arguments(env::args_os()).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Check(args) => {
            let terminal = Terminal::new(args.terminal);
            check::run(*args, &terminal).unwrap_or_else(|error| {
                terminal.print_error(&error::render(&error));
                ExitCode::from(check::FAILED)
            })
        }
        Command::CipdPlugin(args) => match cipd_plugin::run(*args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}", error::render(&error));
                ExitCode::from(cipd_plugin::FAILED)
            }
        },
    }
}
