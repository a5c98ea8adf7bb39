//! A plugin on the gRPC wire that knows neither the host's code nor the SDK's, as it should
//! be or not, by its argument.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "what a plugin should not do is what is tested"
)]

mod bounds;
mod modes;
mod odd;
mod serve;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument.is_empty() {
        return serve::run();
    }
    let code = modes::run(&argument)
        .or_else(|| odd::run(&argument))
        .or_else(|| bounds::run(&argument));
    code.unwrap_or_else(|| {
        eprintln!("the peer has no mode {argument:?}");
        ExitCode::FAILURE
    })
}
