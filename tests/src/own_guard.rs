//! Programs of the tests that are the guard of their own plugins.

use std::env;
use std::process::ExitCode;

use admission_host::{Host, HostOptions, guard};

use crate::Mode;

/// The first argument of such a program when it is the guard of a plugin.
const GUARD: &str = "--guard";

/// Runs this program as a guard, if it was started as one. To be called first of all.
#[must_use]
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    (arguments.next()? == GUARD).then(|| guard::run(arguments))
}

/// Creates a host for plugins of this mode, whose guard is this program where there is one.
#[must_use]
pub fn host(mode: Mode, options: HostOptions) -> Host {
    Host::new(match mode {
        Mode::Guarded => options.guard("/proc/self/exe", [GUARD]),
        Mode::Native | Mode::Grpc | Mode::Component => options,
    })
}
