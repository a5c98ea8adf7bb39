//! What each check must answer, and what it did answer.

use std::fmt;

use admission_host::{CheckError, ErrorKind, Pin};
use conformance_fixture::hash;

/// How the checks of one mode ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) plugins: u64,
    /// Plugins that crashed or were killed.
    pub(crate) killed: u64,
    pub(crate) checks: u64,
    /// Checks that ended with the verdict that was due.
    verdicts: u64,
    /// Checks that failed with their plugin, which was meant to end.
    failures: u64,
    /// Checks that nobody settled.
    pub(crate) lost: u64,
    /// Verdicts on checks that were settled already.
    pub(crate) doubled: u64,
    /// What should not have been said, the first few in full.
    wrong: u64,
    examples: Vec<String>,
}

/// Examples that are kept of what was wrong.
const EXAMPLES: usize = 5;

impl Ledger {
    /// Enters how a check ended. `mortal` tells whether its plugin was meant to end
    /// before all its checks did.
    pub(crate) fn enter(&mut self, pin: &Pin, result: Result<(), CheckError>, mortal: bool) {
        self.checks += 1;
        let package = pin.package();
        let due = match package.starts_with("die/") {
            true => Err("no verdict".to_owned()),
            false => hash::verdict(package, &pin.instance().object_ref().hex_digest),
        };
        match (&result, &due) {
            (Ok(()), Ok(())) => self.verdicts += 1,
            (Err(error @ CheckError::Denied { .. }), Err(message))
                if error.to_string() == *message =>
            {
                self.verdicts += 1;
            }
            (Err(error), _) if mortal && is_end(error.kind()) => self.failures += 1,
            _ => {
                self.wrong += 1;
                if self.examples.len() < EXAMPLES {
                    self.examples
                        .push(format!("{pin}: {result:?}, due: {due:?}"));
                }
            }
        }
    }

    /// Tells whether every check ended as it must.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.wrong == 0
    }

    fn share_of_verdicts(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "it is printed as a percentage")]
        let share = self.verdicts as f64 / self.checks.max(1) as f64;
        100.0 * share
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} plugins ({} killed), {} checks: {} verdicts ({:.1} %), {} failed with their plugin; \
             {} lost, {} doubled, {} wrong",
            self.plugins,
            self.killed,
            self.checks,
            self.verdicts,
            self.share_of_verdicts(),
            self.failures,
            self.lost,
            self.doubled,
            self.wrong
        )?;
        self.examples
            .iter()
            .try_for_each(|example| write!(f, "\n    wrong: {example}"))
    }
}

/// Tells whether this is how a check fails when its plugin ends.
fn is_end(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Crash | ErrorKind::Trap | ErrorKind::Aborted
    )
}
