//! The outcomes of all pins together.

use std::time::Duration;

use admission_host::{CheckError, ErrorKind};

use crate::output::{CheckedPin, Outcome};

/// Counts of outcomes, and the errors that concern more than one pin.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    admitted: usize,
    denied: usize,
    failed: usize,
    /// Whether any check timed out.
    pub(crate) timed_out: bool,
    /// The failure of the plugin, if it failed.
    pub(crate) plugin_failure: Option<CheckError>,
}

impl Summary {
    pub(crate) fn add(&mut self, checked: &CheckedPin) {
        match checked.outcome() {
            Outcome::Admitted => self.admitted += 1,
            Outcome::Denied => self.denied += 1,
            Outcome::Failed => self.failed += 1,
        }
        match &checked.result {
            Err(error @ CheckError::Plugin(_)) if self.plugin_failure.is_none() => {
                self.plugin_failure = Some(error.clone());
            }
            Err(error) => self.timed_out |= error.kind() == ErrorKind::Timeout,
            Ok(()) => {}
        }
    }

    /// Returns the worst outcome of all.
    pub(crate) fn worst(&self) -> Outcome {
        if self.failed > 0 {
            Outcome::Failed
        } else if self.denied > 0 {
            Outcome::Denied
        } else {
            Outcome::Admitted
        }
    }

    /// Returns the counts and the duration of all checks, in one line.
    pub(crate) fn line(&self, duration: Duration) -> String {
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
        // A few pins take only milliseconds, so that two decimals would show 0.00.
        let decimals = if duration < Duration::from_millis(100) {
            4
        } else {
            2
        };
        let seconds = duration.as_secs_f64();
        format!(
            "{pins}: {admitted} admitted, {denied} denied, {failed} failed in {seconds:.decimals$} s"
        )
    }
}

#[cfg(test)]
mod tests {
    use admission_host::{Pin, Status};

    use super::*;

    fn summary(results: impl IntoIterator<Item = Result<(), CheckError>>) -> Summary {
        let mut summary = Summary::default();
        for result in results {
            summary.add(&CheckedPin {
                pin: Pin::new("a", &"a".repeat(40)).unwrap(),
                result,
                duration: Duration::ZERO,
            });
        }
        summary
    }

    fn denied() -> Result<(), CheckError> {
        Err(CheckError::from_status("policy", Status::denied("no")))
    }

    fn timed_out() -> Result<(), CheckError> {
        Err(CheckError::timed_out("policy", Duration::from_secs(60)))
    }

    #[test]
    fn a_failure_is_worse_than_a_denial_which_is_worse_than_an_admission() {
        assert_eq!(summary([Ok(()), Ok(())]).worst(), Outcome::Admitted);
        assert_eq!(summary([denied(), Ok(())]).worst(), Outcome::Denied);
        assert_eq!(summary([timed_out(), denied()]).worst(), Outcome::Failed);
    }

    #[test]
    fn the_line_has_counts_and_the_duration() {
        let all = summary([Ok(()), denied(), denied(), timed_out()]);
        assert_eq!(
            all.line(Duration::from_millis(1234)),
            "4 pins: 1 admitted, 2 denied, 1 failed in 1.23 s"
        );
        assert_eq!(
            summary([Ok(())]).line(Duration::from_micros(4260)),
            "1 pin: 1 admitted, 0 denied, 0 failed in 0.0043 s"
        );
        assert!(all.timed_out);
    }
}
