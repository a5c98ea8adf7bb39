//! Outcomes for people: aligned columns, with colours if they are enabled.

use std::fmt::Write as _;
use std::io::{self, Write};

use admission_host::Pin;
use admission_proto::escape;
use anstyle::{AnsiColor, Style};

use super::{CheckedPin, Outcome};

/// Widest column of pins, in characters. A longer pin exceeds the column, and does not push
/// the outcomes of all other pins off the screen.
const MAX_WIDTH: usize = 160;

/// Longest message of a plugin that is shown in full, in bytes.
const MAX_MESSAGE: usize = 4 << 10;

/// The layout of the lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    width: usize,
    colour: bool,
}

impl Columns {
    pub(crate) fn for_pins(pins: &[Pin], colour: bool) -> Self {
        // Pins are ASCII, so bytes are characters.
        let widths = pins.iter().map(|pin| pin.to_string().len());
        let width = widths.max().unwrap_or(0).min(MAX_WIDTH);
        Self { width, colour }
    }

    /// Writes the line of one pin.
    pub(super) fn write(self, out: &mut impl Write, checked: &CheckedPin) -> io::Result<()> {
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

/// Escapes a message for one line of a terminal, and truncates it.
fn one_line(message: &str) -> String {
    let shown = &message[..message.floor_char_boundary(MAX_MESSAGE)];
    let mut line = escape(shown);
    if shown.len() < message.len() {
        write!(line, " (truncated, {} bytes)", message.len()).expect("a string takes it");
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use admission_host::{CheckError, Status};

    use super::*;

    fn line(columns: Columns, pin: &Pin, result: Result<(), CheckError>) -> String {
        let checked = CheckedPin {
            pin: pin.clone(),
            result,
            duration: Duration::ZERO,
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
        Err(CheckError::from_status("policy", Status::denied(message)))
    }

    #[test]
    fn outcomes_are_aligned_for_all_pins() {
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
    fn a_message_stays_on_its_line() {
        let [pin, _] = pins();
        let columns = Columns::for_pins(std::slice::from_ref(&pin), false);
        assert_eq!(
            line(columns, &pin, denied("no\n\x1b[2Jfake:  admitted")),
            format!("{pin}  denied: no\\n\\u{{1b}}[2Jfake:  admitted\n")
        );
    }

    #[test]
    fn a_long_message_is_truncated_between_characters() {
        let message = format!("x{}", "ü".repeat(MAX_MESSAGE));
        let shown = one_line(&message);
        let kept = "ü".repeat(MAX_MESSAGE / 2 - 1);
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
