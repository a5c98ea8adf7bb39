//! A plugin on the gRPC wire that shares no code with the host or the SDK. Its argument
//! selects a mode: well-behaved, or misbehaving in one way.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests what a plugin should not do"
)]

mod calls;
mod ends;
mod limits;
mod serve;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument.is_empty() {
        return serve::run();
    }
    let code = ends::run(&argument)
        .or_else(|| calls::run(&argument))
        .or_else(|| limits::run(&argument));
    code.unwrap_or_else(|| {
        eprintln!("the peer has no mode {argument:?}");
        ExitCode::FAILURE
    })
}
