//! Outcomes for people: aligned columns, coloured on request.

use std::fmt::Write as _;
use std::io::{self, Write};

use admission_host::Pin;
use admission_proto::escape;
use anstyle::{AnsiColor, Style};

use super::{Checked, Outcome};

/// Widest column of pins; longer ones stand out, so that one does not push all
/// outcomes off the screen.
const WIDEST: usize = 160;

/// Longest message of a plugin that is shown, in bytes.
const LONGEST_MESSAGE: usize = 4 << 10;

/// How the lines are laid out and coloured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    width: usize,
    colour: bool,
}

impl Columns {
    /// Lays out lines for `pins`.
    pub(crate) fn for_pins(pins: &[Pin], colour: bool) -> Self {
        let width = pins.iter().map(pin_width).max().unwrap_or(0).min(WIDEST);
        Self { width, colour }
    }

    /// Writes the line of one pin.
    pub(super) fn write(self, out: &mut impl Write, checked: &Checked) -> io::Result<()> {
        let Self { width, .. } = self;
        let outcome = checked.outcome();
        let style = self.style(outcome);
        let pin = checked.pin.to_string();
        write!(out, "{pin:width$}  {style}{}{style:#}", outcome.as_str())?;
        if let Some(message) = checked.message() {
            write!(out, ": {}", one_line(&message))?;
        }
        writeln!(out)
    }

    fn style(self, outcome: Outcome) -> Style {
        if !self.colour {
            return Style::new();
        }
        let colour = match outcome {
            Outcome::Admitted => AnsiColor::Green,
            Outcome::Denied => AnsiColor::Red,
            Outcome::Failed => AnsiColor::Yellow,
        };
        colour.on_default()
    }
}

fn pin_width(pin: &Pin) -> usize {
    // A SHA1 instance ID has 40 characters and a SHA256 one 44; both are ASCII.
    pin.to_string().len()
}

/// Makes a message fit for one line of a terminal.
fn one_line(message: &str) -> String {
    let shown = &message[..message.floor_char_boundary(LONGEST_MESSAGE)];
    let mut line = escape(shown);
    if shown.len() < message.len() {
        write!(line, " (truncated, {} bytes)", message.len()).expect("a string takes it");
    }
    line
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use admission_host::{CheckError, Status};

    use super::*;

    fn line(columns: Columns, pin: &Pin, result: Result<(), CheckError>) -> String {
        let checked = Checked {
            pin: pin.clone(),
            result,
            took: Duration::ZERO,
        };
        let mut out = Vec::new();
        columns.write(&mut out, &checked).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn pins() -> [Pin; 2] {
        let sha1 = "a".repeat(40);
        let sha256 = "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";
        [
            Pin::new("a", &sha1).unwrap(),
            Pin::new("b/c", sha256).unwrap(),
        ]
    }

    fn denied(message: &str) -> Result<(), CheckError> {
        Err(CheckError::Denied {
            plugin: "policy".into(),
            status: Arc::new(Status::denied(message)),
        })
    }

    #[test]
    fn outcomes_are_aligned_over_all_pins() {
        let [short, long] = pins();
        let columns = Columns::for_pins(&pins(), false);
        assert_eq!(
            line(columns, &short, Ok(())),
            format!("{short}        admitted\n")
        );
        assert_eq!(
            line(columns, &long, denied("not allowed")),
            format!("{long}  denied: not allowed\n")
        );
    }

    #[test]
    fn what_a_plugin_says_stays_on_its_line() {
        let [pin, _] = pins();
        let columns = Columns::for_pins(std::slice::from_ref(&pin), false);
        assert_eq!(
            line(columns, &pin, denied("no\n\x1b[2Jfake:  admitted")),
            format!("{pin}  denied: no\\n\\u{{1b}}[2Jfake:  admitted\n")
        );
    }

    #[test]
    fn a_giant_message_is_cut_between_characters() {
        let message = format!("x{}", "ü".repeat(LONGEST_MESSAGE));
        let shown = one_line(&message);
        let kept = "ü".repeat(LONGEST_MESSAGE / 2 - 1);
        assert_eq!(shown, format!("x{kept} (truncated, 8193 bytes)"));
    }

    #[test]
    fn only_the_outcome_is_coloured() {
        let [pin, _] = pins();
        let columns = Columns::for_pins(std::slice::from_ref(&pin), true);
        assert_eq!(
            line(columns, &pin, denied("why")),
            format!("{pin}  \x1b[31mdenied\x1b[0m: why\n")
        );
    }
}
