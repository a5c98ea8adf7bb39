//! Output on stdout: one line per pin, in the order of the pins.

mod json;
mod text;

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use admission_host::{CheckError, Pin};
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use crate::args::Format;
pub(crate) use text::Columns;

/// Most lines between two flushes.
const BATCH: usize = 256;

/// A pin and the result of its check.
#[derive(Debug)]
pub(crate) struct CheckedPin {
    pub(crate) pin: Pin,
    pub(crate) result: Result<(), CheckError>,
    /// The time from the start of the check until its outcome.
    pub(crate) duration: Duration,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Admitted,
    Denied,
    Failed,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

impl CheckedPin {
    pub(crate) fn outcome(&self) -> Outcome {
        match &self.result {
            Ok(()) => Outcome::Admitted,
            Err(CheckError::Denied { .. }) => Outcome::Denied,
            Err(_) => Outcome::Failed,
        }
    }

    /// Returns the reason unless the pin was admitted. The message of a plugin's status is
    /// not escaped.
    fn message(&self) -> Option<Cow<'_, str>> {
        Some(match self.result.as_ref().err()? {
            CheckError::Denied { status, .. } | CheckError::PolicyError { status, .. } => {
                status.message.as_str().into()
            }
            error => error.to_string().into(),
        })
    }
}

/// Prints outcomes as they arrive.
pub(crate) struct Printer {
    pub(crate) format: Format,
    pub(crate) columns: Columns,
    /// The progress bar to hide while lines are written to the same terminal.
    pub(crate) progress: Option<ProgressBar>,
}

impl Printer {
    /// Prints everything that arrives, until the sender is dropped or stdout has no reader.
    ///
    /// Blocks while stdout blocks. Needs a thread of its own, so that a slow reader of stdout
    /// does not delay the handling of signals.
    ///
    /// # Errors
    ///
    /// If stdout cannot be written. A closed pipe is not an error.
    pub(crate) fn print(self, mut lines: mpsc::Receiver<CheckedPin>) -> io::Result<()> {
        let mut stdout = BufWriter::new(io::stdout().lock());
        let mut batch = Vec::with_capacity(BATCH);
        while lines.blocking_recv_many(&mut batch, BATCH) > 0 {
            let written = match &self.progress {
                Some(progress) => progress.suspend(|| self.write(&mut stdout, &batch)),
                None => self.write(&mut stdout, &batch),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    // Dropping the writer would try to write the rest again.
                    let _unwritten = stdout.into_parts();
                    return Ok(());
                }
                written => written?,
            }
            batch.clear();
        }
        Ok(())
    }

    fn write(&self, out: &mut impl Write, batch: &[CheckedPin]) -> io::Result<()> {
        for checked in batch {
            match self.format {
                Format::Text => self.columns.write(out, checked)?,
                Format::Json => json::write(out, checked)?,
            }
        }
        out.flush()
    }
}
