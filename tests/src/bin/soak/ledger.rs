//! Compares the outcome of each check with the expected one.

use std::fmt;

use admission_host::{CheckError, ErrorKind, Pin};
use conformance_fixture::hash;

/// The outcomes of the checks of one mode.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) plugins: u64,
    /// Plugins that crashed or were killed.
    pub(crate) killed: u64,
    pub(crate) checks: u64,
    /// Checks that ended with the expected verdict.
    verdicts: u64,
    /// Checks that failed because their plugin ended as intended.
    failures: u64,
    /// Checks that stayed pending.
    pub(crate) lost: u64,
    /// Verdicts on settled checks.
    pub(crate) duplicate: u64,
    /// Unexpected outcomes.
    wrong: u64,
    examples: Vec<String>,
}

/// Number of wrong outcomes that are kept as examples.
const EXAMPLES: usize = 5;

impl Ledger {
    /// Adds the outcome of a check. `may_end` is true if its plugin may end before the check
    /// gets its verdict.
    pub(crate) fn add(&mut self, pin: &Pin, result: Result<(), CheckError>, may_end: bool) {
        self.checks += 1;
        let package = pin.package();
        let expected = match package.starts_with("die/") {
            true => Err("no verdict".to_owned()),
            false => hash::verdict(package, &pin.instance().object_ref().hex_digest),
        };
        match (&result, &expected) {
            (Ok(()), Ok(())) => self.verdicts += 1,
            (Err(error @ CheckError::Denied { .. }), Err(message))
                if error.to_string() == *message =>
            {
                self.verdicts += 1;
            }
            (Err(error), _) if may_end && is_end(error.kind()) => self.failures += 1,
            _ => {
                self.wrong += 1;
                if self.examples.len() < EXAMPLES {
                    self.examples
                        .push(format!("{pin}: {result:?}, expected: {expected:?}"));
                }
            }
        }
    }

    /// Returns whether every outcome was expected.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicate == 0 && self.wrong == 0
    }

    fn share_of_verdicts(&self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "the share is printed as a percentage"
        )]
        let share = self.verdicts as f64 / self.checks.max(1) as f64;
        100.0 * share
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} plugins ({} killed), {} checks: {} verdicts ({:.1} %), {} failed with their plugin; \
             {} lost, {} duplicate, {} wrong",
            self.plugins,
            self.killed,
            self.checks,
            self.verdicts,
            self.share_of_verdicts(),
            self.failures,
            self.lost,
            self.duplicate,
            self.wrong
        )?;
        self.examples
            .iter()
            .try_for_each(|example| write!(f, "\n    wrong: {example}"))
    }
}

/// Returns whether a check fails with this kind when its plugin ends.
fn is_end(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Crash | ErrorKind::Trap | ErrorKind::Aborted
    )
}
