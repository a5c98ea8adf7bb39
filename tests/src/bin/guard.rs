//! The guard of the tests' plugins.

use std::process::ExitCode;

fn main() -> ExitCode {
    admission_host::guard::run(std::env::args_os().skip(1))
}
