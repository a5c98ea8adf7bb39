//! Plugins that leave processes behind.

use std::ffi::OsString;

use admission_host::Source;
use conformance::Mode;
use conformance::liveness_pipe::LivenessPipe;
use conformance::modes::native;

/// Leaves a process in the plugin's group.
const FORK: &str = "sleep 1000 & echo forked >&9";

/// Leaves a process in its own session, without a parent.
const DAEMONISE: &str = "setsid sh -c 'sleep 1000 & echo daemonised >&9'";

/// Executes the fixture.
const EXEC_FIXTURE: &str = r#"exec "$1""#;

/// Number of lines that a plugin has written once it has forked and daemonised.
pub(crate) const LINES: usize = 2;

/// Returns the fixture for a mode. It leaves only processes that a close ends in that mode: a
/// component starts none, and a plugin without a guard starts no daemon.
pub(crate) fn fixture(mode: Mode, liveness: &LivenessPipe) -> Source {
    let commands: &[&str] = match mode {
        Mode::Component => return mode.fixture(""),
        Mode::Native | Mode::Grpc => &[FORK, EXEC_FIXTURE],
        Mode::Guarded => &[FORK, DAEMONISE, EXEC_FIXTURE],
    };
    mode.command(with_fixture(liveness, commands))
}

/// Returns a plugin that forks, daemonises and sends verdicts.
pub(crate) fn answering(liveness: &LivenessPipe) -> Vec<OsString> {
    with_fixture(liveness, &[FORK, DAEMONISE, EXEC_FIXTURE])
}

/// Returns a plugin that forks, daemonises and never connects.
pub(crate) fn silent(liveness: &LivenessPipe) -> Vec<OsString> {
    with_fixture(liveness, &[FORK, DAEMONISE, "exec sleep 1000"])
}

/// Returns a plugin that forks, daemonises and sends verdicts. At the end of stdin it writes a
/// line and keeps running.
pub(crate) fn lingering(liveness: &LivenessPipe) -> Vec<OsString> {
    let linger = r#""$1"; echo finishing >&9; exec sleep 1000"#;
    with_fixture(liveness, &[FORK, DAEMONISE, linger])
}

fn with_fixture(liveness: &LivenessPipe, commands: &[&str]) -> Vec<OsString> {
    let fixture = native("conformance-fixture").into_os_string();
    liveness
        .script(commands)
        .into_iter()
        .chain([fixture])
        .collect()
}
