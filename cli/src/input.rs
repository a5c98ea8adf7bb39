//! The pins to check, from the command line and from files.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use admission_host::{Pin, PinError};
use admission_proto::{VersionError, validate_package_name, validate_version};

use crate::args::PinArgs;

/// Longest line of an input file, in bytes. Bounds what a file without line ends costs.
const LONGEST_LINE: usize = 64 << 10;

/// Why there are no pins to check.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// Nothing was named, or nothing is in what was named.
    #[error("no pin to check")]
    NoPin,
    /// The file cannot be read.
    #[error("cannot read {file}")]
    Read { file: Name, source: io::Error },
    /// A line of the file is broken; it is the first one that is.
    #[error("{file}:{line}: {problem}")]
    Line {
        file: Name,
        line: usize,
        problem: Problem,
    },
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Version(#[from] VersionError),
    #[error("not valid UTF-8")]
    Utf8,
    #[error("longer than {LONGEST_LINE} bytes")]
    TooLong,
    #[error("expected {expected}, found {found}")]
    Unexpected {
        expected: &'static str,
        found: Found,
    },
}

/// What stands where something else is expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Found {
    #[error("a blank line")]
    Blank,
    #[error("the end of the file")]
    End,
    #[error("{0:?}")]
    Text(String),
}

/// The name of a file as messages show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Stdin,
    Path(PathBuf),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("<stdin>"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// Reads all pins, in the order of [`PinArgs`].
///
/// # Errors
///
/// [`InputError`] for the first thing that is wrong, or if there is no pin at all.
pub(crate) fn read(args: PinArgs) -> Result<Vec<Pin>, InputError> {
    let mut pins = args.pins;
    if let Some(path) = &args.resolved_versions {
        let mut lines = Lines::open(path)?;
        read_resolved_versions(&mut lines, &mut pins)?;
    }
    if let Some(path) = &args.file {
        let mut lines = match path.to_str() {
            Some("-") => Lines::new(Name::Stdin, Box::new(io::stdin().lock())),
            _ => Lines::open(path)?,
        };
        read_pins(&mut lines, &mut pins)?;
    }
    if pins.is_empty() {
        return Err(InputError::NoPin);
    }
    Ok(pins)
}

/// Reads one `package:instance_id` a line, between blank lines and comments.
fn read_pins(lines: &mut Lines, pins: &mut Vec<Pin>) -> Result<(), InputError> {
    while let Some(line) = lines.next()? {
        if !line.is_empty() {
            pins.push(
                line.parse()
                    .map_err(|problem: PinError| lines.broken(problem))?,
            );
        }
    }
    Ok(())
}

/// Reads triples of package, version and instance ID, with blank lines between them.
fn read_resolved_versions(lines: &mut Lines, pins: &mut Vec<Pin>) -> Result<(), InputError> {
    while let Some(package) = lines.next()? {
        if package.is_empty() {
            continue;
        }
        validate_package_name(&package).map_err(|problem| lines.broken(problem))?;
        let version = lines.next_text("a version")?;
        validate_version(&version).map_err(|problem| lines.broken(problem))?;
        let instance_id = lines.next_text("an instance ID")?;
        pins.push(Pin::new(&package, &instance_id).map_err(|problem| lines.broken(problem))?);
        if let Some(text) = lines.next()?
            && !text.is_empty()
        {
            return Err(lines.broken(Problem::Unexpected {
                expected: "a blank line after the instance ID",
                found: Found::Text(text),
            }));
        }
    }
    Ok(())
}

/// The lines of a file but its comments, counted and one in memory at a time.
struct Lines {
    file: Name,
    reader: Box<dyn BufRead>,
    /// How many lines were read: the number of the last one.
    number: usize,
}

impl Lines {
    fn new(file: Name, reader: impl BufRead + 'static) -> Self {
        Self {
            file,
            reader: Box::new(reader),
            number: 0,
        }
    }

    fn open(path: &Path) -> Result<Self, InputError> {
        let name = Name::Path(path.to_owned());
        match File::open(path) {
            Ok(file) => Ok(Self::new(name, BufReader::new(file))),
            Err(source) => Err(InputError::Read { file: name, source }),
        }
    }

    /// Returns the next line that is no comment, without the blanks around it, or
    /// `None` at the end.
    fn next(&mut self) -> Result<Option<String>, InputError> {
        while let Some(line) = self.next_line()? {
            let line = line.trim();
            if !line.starts_with('#') {
                return Ok(Some(line.to_owned()));
            }
        }
        Ok(None)
    }

    /// Returns the next line that is no comment, and has text; `expected` says what for.
    fn next_text(&mut self, expected: &'static str) -> Result<String, InputError> {
        let found = match self.next()? {
            Some(text) if !text.is_empty() => return Ok(text),
            Some(_) => Found::Blank,
            None => Found::End,
        };
        Err(self.broken(Problem::Unexpected { expected, found }))
    }

    fn next_line(&mut self) -> Result<Option<String>, InputError> {
        let mut line = Vec::new();
        let mut reader = self.reader.by_ref().take(LONGEST_LINE as u64 + 1);
        if let Err(source) = reader.read_until(b'\n', &mut line) {
            let file = self.file.clone();
            return Err(InputError::Read { file, source });
        }
        self.number += 1;
        if line.is_empty() {
            return Ok(None);
        }
        if line.len() > LONGEST_LINE {
            return Err(self.broken(Problem::TooLong));
        }
        match String::from_utf8(line) {
            Ok(line) => Ok(Some(line)),
            Err(_) => Err(self.broken(Problem::Utf8)),
        }
    }

    /// Says what is wrong with the line that was read last.
    fn broken(&self, problem: impl Into<Problem>) -> InputError {
        InputError::Line {
            file: self.file.clone(),
            line: self.number,
            problem: problem.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";

    type Reader = fn(&mut Lines, &mut Vec<Pin>) -> Result<(), InputError>;

    fn read(reader: Reader, text: impl Into<Vec<u8>>) -> Result<Vec<String>, String> {
        let name = Name::Path("in".into());
        let mut lines = Lines::new(name, io::Cursor::new(text.into()));
        let mut pins = Vec::new();
        reader(&mut lines, &mut pins).map_err(|error| error.to_string())?;
        Ok(pins.iter().map(Pin::to_string).collect())
    }

    fn refusal(reader: Reader, text: impl Into<Vec<u8>>) -> String {
        read(reader, text).expect_err("it should be refused")
    }

    #[test]
    fn a_list_of_pins_may_have_comments_blanks_and_any_line_ends() {
        let text = format!("# two\r\n\r\na:{ID}\r\n  b/c:{ID}  \n\n# end");
        assert_eq!(
            read(read_pins, text),
            Ok(vec![format!("a:{ID}"), format!("b/c:{ID}")])
        );
        assert_eq!(read(read_pins, ""), Ok(vec![]));
    }

    #[test]
    fn the_first_broken_line_of_a_list_is_named() {
        assert_eq!(
            refusal(read_pins, format!("a:{ID}\n\nnonsense\nworse")),
            "in:3: not a pin \"nonsense\": must be package:instance_id"
        );
        assert_eq!(
            refusal(read_pins, b"# fine\n\xff\xfe\n"),
            "in:2: not valid UTF-8"
        );
        assert_eq!(
            refusal(read_pins, "x".repeat(LONGEST_LINE + 1)),
            "in:1: longer than 65536 bytes"
        );
    }

    #[test]
    fn resolved_versions_are_triples_with_blank_lines_between() {
        let text = format!(
            "# made by a tool\r\n\na/b\r\n\tgit_revision:1\r\n\t{ID}\r\n\r\n\n\
             # another\nc\n# in between\nlatest\n{ID}"
        );
        assert_eq!(
            read(read_resolved_versions, text),
            Ok(vec![format!("a/b:{ID}"), format!("c:{ID}")])
        );
    }

    #[test]
    fn a_triple_that_is_not_one_is_refused_where_it_breaks() {
        let refusals = [
            ("a\n\n", "in:2: expected a version, found a blank line"),
            ("a", "in:2: expected a version, found the end of the file"),
            (
                "a\nlatest\n",
                "in:3: expected an instance ID, found the end of the file",
            ),
            (
                "a\n:latest\n",
                "in:2: bad version \":latest\": not an instance ID, a ref or a tag",
            ),
            (
                "a\nlatest\nshort\n",
                "in:3: not a valid package instance ID \"short\": not a valid size for an encoded digest",
            ),
            (
                "a\nlatest\nqUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC\n@Subdir x\n",
                "in:4: expected a blank line after the instance ID, found \"@Subdir x\"",
            ),
            (
                "@Subdir x\n",
                r#"in:1: invalid package name "@Subdir x": must be a slash-separated path where each component matches "[a-z0-9_\-\.]+""#,
            ),
            (
                "a/${platform}\nlatest\n",
                r#"in:1: invalid package name "a/${platform}": must be a slash-separated path where each component matches "[a-z0-9_\-\.]+""#,
            ),
        ];
        for (text, refused) in refusals {
            assert_eq!(refusal(read_resolved_versions, text), refused);
        }
    }
}
