//! What became of all pins together.

use std::time::Duration;

use admission_host::{CheckError, ErrorKind};

use crate::output::{Checked, Outcome};

/// Counts outcomes, and keeps the errors that concern more than one pin.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    admitted: usize,
    denied: usize,
    failed: usize,
    timed_out: usize,
    plugin_failure: Option<CheckError>,
}

impl Tally {
    /// Counts one outcome in.
    pub(crate) fn add(&mut self, checked: &Checked) {
        match checked.outcome() {
            Outcome::Admitted => self.admitted += 1,
            Outcome::Denied => self.denied += 1,
            Outcome::Failed => self.failed += 1,
        }
        match &checked.result {
            Err(error @ CheckError::Plugin(_)) if self.plugin_failure.is_none() => {
                self.plugin_failure = Some(error.clone());
            }
            Err(error) if error.kind() == ErrorKind::Timeout => self.timed_out += 1,
            _ => {}
        }
    }

    /// Returns the worst outcome that there was.
    pub(crate) fn worst(&self) -> Outcome {
        if self.failed > 0 {
            Outcome::Failed
        } else if self.denied > 0 {
            Outcome::Denied
        } else {
            Outcome::Admitted
        }
    }

    /// Returns how the plugin failed, if it did.
    pub(crate) fn plugin_failure(&self) -> Option<&CheckError> {
        self.plugin_failure.as_ref()
    }

    /// Returns how many checks were not answered in time.
    pub(crate) fn timed_out(&self) -> usize {
        self.timed_out
    }

    /// Sums it up in one line.
    pub(crate) fn summary(&self, took: Duration) -> String {
        let Self {
            admitted,
            denied,
            failed,
            ..
        } = self;
        let pins = match admitted + denied + failed {
            1 => "1 pin".to_owned(),
            pins => format!("{pins} pins"),
        };
        // Two digits that mean something: a handful of pins takes a few milliseconds.
        let decimals = if took < Duration::from_millis(100) {
            4
        } else {
            2
        };
        let seconds = took.as_secs_f64();
        format!(
            "{pins}: {admitted} admitted, {denied} denied, {failed} failed in {seconds:.decimals$} s"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use admission_host::{Pin, Status};

    use super::*;

    fn tally(results: impl IntoIterator<Item = Result<(), CheckError>>) -> Tally {
        let mut tally = Tally::default();
        for result in results {
            tally.add(&Checked {
                pin: Pin::new("a", &"a".repeat(40)).unwrap(),
                result,
                took: Duration::ZERO,
            });
        }
        tally
    }

    fn denied() -> Result<(), CheckError> {
        Err(CheckError::Denied {
            plugin: "policy".into(),
            status: Arc::new(Status::denied("no")),
        })
    }

    fn timed_out() -> Result<(), CheckError> {
        Err(CheckError::TimedOut {
            plugin: "policy".into(),
            after: Duration::from_secs(60),
        })
    }

    #[test]
    fn a_failure_is_worse_than_a_denial_and_a_denial_than_an_admission() {
        assert_eq!(tally([Ok(()), Ok(())]).worst(), Outcome::Admitted);
        assert_eq!(tally([denied(), Ok(())]).worst(), Outcome::Denied);
        assert_eq!(tally([timed_out(), denied()]).worst(), Outcome::Failed);
    }

    #[test]
    fn the_summary_counts_and_measures() {
        let all = tally([Ok(()), denied(), denied(), timed_out()]);
        assert_eq!(
            all.summary(Duration::from_millis(1234)),
            "4 pins: 1 admitted, 2 denied, 1 failed in 1.23 s"
        );
        assert_eq!(
            tally([Ok(())]).summary(Duration::from_micros(4260)),
            "1 pin: 1 admitted, 0 denied, 0 failed in 0.0043 s"
        );
        assert_eq!(all.timed_out(), 1);
    }
}
