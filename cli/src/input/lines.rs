//! Text files, read a line at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use super::{Found, InputError, Name, Problem};

/// Longest line of an input file, in bytes. Bounds what a file without line ends costs.
pub(super) const LONGEST_LINE: usize = 64 << 10;

/// The lines of a file but its comments, counted and one in memory at a time.
pub(super) struct Lines {
    file: Name,
    reader: Box<dyn BufRead>,
    /// How many lines were read: the number of the last one.
    number: usize,
}

impl Lines {
    pub(super) fn new(file: Name, reader: impl BufRead + 'static) -> Self {
        Self {
            file,
            reader: Box::new(reader),
            number: 0,
        }
    }

    /// Opens the file at `path`, whatever it is called.
    pub(super) fn open(path: &Path) -> Result<Self, InputError> {
        let name = Name::Path(path.to_owned());
        match File::open(path) {
            Ok(file) => Ok(Self::new(name, BufReader::new(file))),
            Err(source) => Err(InputError::Read { file: name, source }),
        }
    }

    /// Opens what an option names: a file, or stdin as `-`.
    pub(super) fn open_or_stdin(path: &Path) -> Result<Self, InputError> {
        if is_stdin(path) {
            Ok(Self::new(Name::Stdin, io::stdin().lock()))
        } else {
            Self::open(path)
        }
    }

    pub(super) fn file(&self) -> &Name {
        &self.file
    }

    /// Returns the number of the line that was read last.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Returns the next line that is no comment, without the blanks around it, or
    /// `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<String>, InputError> {
        while let Some(line) = self.next_line()? {
            // A comment may be in any encoding.
            if line.trim_ascii_start().starts_with(b"#") {
                continue;
            }
            let Ok(line) = str::from_utf8(&line) else {
                return Err(self.broken(Problem::Utf8));
            };
            let line = line.trim();
            if !line.starts_with('#') {
                return Ok(Some(line.to_owned()));
            }
        }
        Ok(None)
    }

    /// Returns the next line that is no comment, and has text; `expected` says what for.
    pub(super) fn next_text(&mut self, expected: &'static str) -> Result<String, InputError> {
        let found = match self.next()? {
            Some(text) if !text.is_empty() => return Ok(text),
            Some(_) => Found::Blank,
            None => Found::End,
        };
        Err(self.broken(Problem::Unexpected { expected, found }))
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>, InputError> {
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
        Ok(Some(line))
    }

    /// Says what is wrong with the line that was read last.
    pub(super) fn broken(&self, problem: impl Into<Problem>) -> InputError {
        InputError::Line {
            file: self.file.clone(),
            line: self.number,
            problem: problem.into(),
        }
    }
}

/// Tells whether `path` stands for stdin.
pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}
