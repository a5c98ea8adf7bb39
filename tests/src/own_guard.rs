//! Support for test programs that act as the guard of their own plugins.

use std::env;
use std::process::ExitCode;

use admission_host::{Host, HostOptions, guard};

use crate::Mode;

/// The first argument of such a program when it runs as a guard.
const GUARD: &str = "--guard";

/// Runs this program as a guard if it was started as one. Call this first.
#[must_use]
pub fn run_if_guard() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    (arguments.next()? == GUARD).then(|| guard::run(arguments))
}

/// Creates a host for plugins of this mode. In the guarded mode its guard is this program.
#[must_use]
pub fn host(mode: Mode, options: HostOptions) -> Host {
    Host::new(match mode {
        Mode::Guarded => options.guard("/proc/self/exe", [GUARD]),
        Mode::Native | Mode::Grpc | Mode::Component => options,
    })
}
