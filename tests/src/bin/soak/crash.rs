//! Measures the time from a crash to the end of a pending check.

use std::time::{Duration, Instant};

use admission_host::Host;
use conformance::{GRACE, Mode, error_of, pin};
use rustix::process::{Pid, Signal, kill_process};

/// Times between a SIGKILL and the end of a pending check.
#[derive(Debug, Default)]
pub(crate) struct Delays(Vec<Duration>);

impl Delays {
    /// Starts a native plugin, kills it while a check is pending, and measures the time.
    pub(crate) async fn measure(&mut self, host: &Host, argument: &str) {
        let plugin = host.plugin(Mode::Native.fixture(argument));
        let denial = error_of(&plugin.check_admission(&pin("pid"))).await;
        let hanging = plugin.check_admission(&pin("hang"));
        let pid = denial.to_string().parse().ok().and_then(Pid::from_raw);
        let plugin_process = pid.expect("the fixture prints its process ID");
        let killed = Instant::now();
        kill_process(plugin_process, Signal::KILL).expect("it is ours");
        error_of(&hanging).await;
        self.0.push(killed.elapsed());
        plugin.close(GRACE).await;
    }

    /// Returns the median and the maximum.
    pub(crate) fn summary(&mut self) -> Option<(Duration, Duration)> {
        self.0.sort();
        let median = self.0.get(self.0.len() / 2)?;
        Some((*median, *self.0.last()?))
    }
}
