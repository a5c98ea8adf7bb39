//! The guard of the plugins that the tests run under one.

use std::process::ExitCode;

fn main() -> ExitCode {
    admission_host::guard::run(std::env::args_os().skip(1))
}
