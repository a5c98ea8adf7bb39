//! What is printed to stdout: one line a pin, in the order of the pins.

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

/// Most lines that are written before they are flushed.
const BATCH: usize = 256;

/// A pin and what became of it.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) pin: Pin,
    pub(crate) result: Result<(), CheckError>,
    /// From asking to settling.
    pub(crate) took: Duration,
}

/// What became of a pin, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Admitted,
    Denied,
    Failed,
}

impl Outcome {
    /// Returns the word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

impl Checked {
    /// Tells a decision from a failure.
    pub(crate) fn outcome(&self) -> Outcome {
        match &self.result {
            Ok(()) => Outcome::Admitted,
            Err(CheckError::Denied { .. }) => Outcome::Denied,
            Err(_) => Outcome::Failed,
        }
    }

    /// Returns why it was not admitted; in the plugin's own words, which nobody has
    /// escaped, where it is the plugin that says so.
    fn message(&self) -> Option<Cow<'_, str>> {
        Some(match self.result.as_ref().err()? {
            CheckError::Denied { status, .. } | CheckError::PolicyError { status, .. } => {
                status.message.as_str().into()
            }
            error => error.to_string().into(),
        })
    }
}

/// Prints outcomes as they come.
pub(crate) struct Printer {
    pub(crate) format: Format,
    pub(crate) columns: Columns,
    /// What must step aside while a line is written to the same terminal.
    pub(crate) progress: Option<ProgressBar>,
}

impl Printer {
    /// Prints all that arrives, until the sender is dropped or stdout's reader is gone.
    ///
    /// Blocks as long as stdout does: it runs on a thread of its own, so that a reader
    /// that stands still holds up no signal.
    ///
    /// # Errors
    ///
    /// If stdout cannot be written for another reason than that nobody reads it.
    pub(crate) fn print(self, mut lines: mpsc::Receiver<Checked>) -> io::Result<()> {
        let mut stdout = BufWriter::new(io::stdout().lock());
        let mut batch = Vec::with_capacity(BATCH);
        while lines.blocking_recv_many(&mut batch, BATCH) > 0 {
            let written = match &self.progress {
                Some(progress) => progress.suspend(|| self.write(&mut stdout, &batch)),
                None => self.write(&mut stdout, &batch),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    // Its reader has seen enough; what is buffered must not be tried again.
                    let _unwritten = stdout.into_parts();
                    return Ok(());
                }
                written => written?,
            }
            batch.clear();
        }
        Ok(())
    }

    fn write(&self, out: &mut impl Write, batch: &[Checked]) -> io::Result<()> {
        for checked in batch {
            match self.format {
                Format::Text => self.columns.write(out, checked)?,
                Format::Json => json::write(out, checked)?,
            }
        }
        out.flush()
    }
}
