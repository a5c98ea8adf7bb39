//! Text files, read line by line.

use std::borrow::Cow;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

/// Longest line of an input file, in bytes. Bounds the memory for a file without line ends.
const MAX_LINE: usize = 64 << 10;

/// Reads a file line by line, without its comments, and counts the lines.
pub(super) struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    /// The number of the last line that was read, from 1.
    number: usize,
}

impl Lines {
    pub(super) fn new(path: &Path, reader: impl BufRead + 'static) -> Self {
        Self {
            path: path.to_owned(),
            reader: Box::new(reader),
            number: 0,
        }
    }

    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(path, BufReader::new(File::open(path)?)))
    }

    /// Opens the file that an option names; `-` is stdin.
    pub(super) fn open_or_stdin(path: &Path) -> anyhow::Result<Self> {
        if is_stdin(path) {
            return Ok(Self::new(path, io::stdin().lock()));
        }
        Self::open(path).with_context(|| format!("cannot read {}", shown(path)))
    }

    /// Returns the number of the last line that was read, from 1.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Returns the next line that is not a comment, trimmed, or `None` at the end.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            let mut line = Vec::new();
            let mut reader = self.reader.by_ref().take(MAX_LINE as u64 + 1);
            reader
                .read_until(b'\n', &mut line)
                .with_context(|| format!("cannot read {}", shown(&self.path)))?;
            self.number += 1;
            if line.is_empty() {
                return Ok(None);
            }
            if line.len() > MAX_LINE {
                return Err(self.error(format_args!("longer than {MAX_LINE} bytes")));
            }
            let text = String::from_utf8_lossy(&line);
            if text.trim_start().starts_with('#') {
                // A comment may have any encoding.
                continue;
            }
            return match text {
                Cow::Borrowed(text) => Ok(Some(text.trim().to_owned())),
                Cow::Owned(_) => Err(self.error("not valid UTF-8")),
            };
        }
    }

    /// Returns an error that names the last line that was read.
    pub(super) fn error(&self, problem: impl Display) -> anyhow::Error {
        anyhow!("{}:{}: {problem}", shown(&self.path), self.number)
    }
}

/// Returns whether an option with this value reads stdin.
pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Returns the name of an input for messages.
pub(super) fn shown(path: &Path) -> impl Display {
    if is_stdin(path) {
        Path::new("<stdin>").display()
    } else {
        path.display()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns the lines of a file called `in`.
    pub(in crate::input) fn lines(text: impl Into<Vec<u8>>) -> Lines {
        Lines::new(Path::new("in"), io::Cursor::new(text.into()))
    }

    fn read(text: impl Into<Vec<u8>>) -> Result<Vec<String>, String> {
        let mut lines = lines(text);
        let mut texts = Vec::new();
        while let Some(text) = lines.next().map_err(|error| error.to_string())? {
            texts.push(text);
        }
        Ok(texts)
    }

    #[test]
    fn lines_are_trimmed_and_comments_in_any_encoding_are_skipped() {
        let text = b" # Z\xfcrich\r\n one \r\n\n\t#\n\xc2\xa0#\ntwo";
        let lines = ["one", "", "two"].map(str::to_owned);
        assert_eq!(read(text), Ok(lines.to_vec()));
        assert_eq!(read(""), Ok(vec![]));
    }

    #[test]
    fn the_error_of_a_broken_line_has_its_number() {
        assert_eq!(
            read(b"# fine\n\xff\xfe\n"),
            Err("in:2: not valid UTF-8".to_owned())
        );
        assert_eq!(
            read("x".repeat(MAX_LINE + 1)),
            Err("in:1: longer than 65536 bytes".to_owned())
        );
    }
}
