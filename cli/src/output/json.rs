//! Outcomes for programs: one JSON object per line, as `docs/cli.md` specifies.

use std::borrow::Cow;
use std::io::{self, Write};

use admission_host::{Code, ErrorKind};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use super::CheckedPin;

/// The object of one pin. No field is ever left out.
#[derive(Serialize)]
struct Line<'a> {
    package: &'a str,
    instance_id: String,
    outcome: &'static str,
    kind: Option<&'static str>,
    code: Option<i32>,
    message: Option<Cow<'a, str>>,
    duration_us: u64,
}

/// Writes the line of one pin.
pub(super) fn write(out: &mut impl Write, checked: &CheckedPin) -> io::Result<()> {
    let error = checked.result.as_ref().err();
    let line = Line {
        package: checked.pin.package(),
        instance_id: checked.pin.instance().to_string(),
        outcome: checked.outcome().as_str(),
        kind: error.map(|error| error.kind()).map(ErrorKind::as_str),
        code: match error {
            None => Some(Code::OK.number()),
            Some(error) => error.code().map(Code::number),
        },
        message: checked.message(),
        duration_us: u64::try_from(checked.duration.as_micros()).unwrap_or(u64::MAX),
    };
    line.serialize(&mut Serializer::with_formatter(&mut *out, Ascii))?;
    writeln!(out)
}

/// Escapes everything but printable ASCII. A JSON reader gets the message unchanged, but the
/// message cannot move the cursor of a terminal or reorder the line.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !c.is_ascii() || c == '\x7f') {
            CompactFormatter.write_string_fragment(writer, &rest[..at])?;
            let mut after = rest[at..].chars();
            for unit in after.next().into_iter().flat_map(utf16) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = after.as_str();
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

fn utf16(c: char) -> impl Iterator<Item = u16> {
    let mut units = [0; 2];
    let len = c.encode_utf16(&mut units).len();
    units.into_iter().take(len)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use admission_host::{CheckError, Pin, Status};

    use super::*;

    const ID: &str = "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";

    fn line(result: Result<(), CheckError>) -> String {
        let checked = CheckedPin {
            pin: Pin::new("a/b", ID).unwrap(),
            result,
            duration: Duration::from_micros(17),
        };
        let mut out = Vec::new();
        write(&mut out, &checked).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn policy_error(code: i32, message: &str) -> Result<(), CheckError> {
        let status = Status::new(code.into(), message);
        Err(CheckError::from_status("policy", status))
    }

    #[test]
    fn the_object_of_an_admission_has_every_field() {
        assert_eq!(
            line(Ok(())),
            format!(
                r#"{{"package":"a/b","instance_id":"{ID}","outcome":"admitted","kind":null,"code":0,"message":null,"duration_us":17}}"#
            ) + "\n"
        );
    }

    #[test]
    fn an_unknown_code_is_printed_as_received() {
        assert_eq!(
            line(policy_error(12345, "odd")),
            format!(
                r#"{{"package":"a/b","instance_id":"{ID}","outcome":"failed","kind":"policy-error","code":12345,"message":"odd","duration_us":17}}"#
            ) + "\n"
        );
    }

    #[test]
    fn an_error_without_a_status_has_no_code() {
        let aborted = line(Err(CheckError::aborted("policy")));
        assert!(aborted.contains(
            r#""kind":"aborted","code":null,"message":"the admission plugin is terminating""#
        ));
    }

    #[test]
    fn every_message_is_printed_as_ascii_and_read_back_unchanged() {
        let message = "\"quoted\"\n\x1b[2J\x7f \u{202e}ü\u{1f980}";
        let line = line(policy_error(2, message));
        assert!(line.trim_end().bytes().all(|b| (b' '..=b'~').contains(&b)));
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["message"], message);
    }
}
