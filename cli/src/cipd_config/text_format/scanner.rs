//! The characters of a text: words, strings, and what stands between them.

use admission_proto::quote;

use super::escape::{self, Escaped};

/// A place in a text; blanks and comments before it were passed over.
pub(super) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {problem}")]
pub(crate) struct TextError {
    line: usize,
    column: usize,
    problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("unexpected end of file")]
    End,
    #[error("expected {expected}, found {}", quote(.found))]
    Unexpected {
        expected: &'static str,
        found: String,
    },
    #[error("missing field separator :")]
    Colon,
    #[error("non-repeated field {} is repeated", quote(.0))]
    Repeated(String),
    #[error("cannot specify field by number: {0}")]
    Number(u32),
    #[error("invalid UTF-8 detected")]
    Utf8,
    #[error("invalid character {} in string", quote(.0))]
    Character(String),
    #[error("invalid escape code {} in string", quote(.0))]
    Escape(String),
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        let mut scanner = Self { text, at: 0 };
        scanner.pass_blanks();
        scanner
    }

    /// Returns where the scanner is, for an error.
    pub(super) fn place(&self) -> usize {
        self.at
    }

    pub(super) fn demand(&mut self, byte: u8, expected: &'static str) -> Result<(), TextError> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.unexpected(expected))
        }
    }

    /// Passes over what may stand between two fields.
    pub(super) fn take_separator(&mut self) {
        if matches!(self.peek(), Some(b',' | b';')) {
            self.pass(1);
        }
    }

    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.pass(1);
        }
        found
    }

    /// Returns what could be one name or number; it may be empty.
    pub(super) fn word(&self) -> &'a [u8] {
        let rest = &self.text[self.at..];
        let is_delimiter =
            |byte: &u8| !byte.is_ascii_alphanumeric() && !matches!(byte, b'-' | b'+' | b'.' | b'_');
        let length = rest.iter().position(is_delimiter).unwrap_or(rest.len());
        &rest[..length]
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub(super) fn pass(&mut self, length: usize) {
        self.at += length;
        self.pass_blanks();
    }

    fn pass_blanks(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'#' => {
                    let rest = &self.text[self.at..];
                    let end = rest.iter().position(|&byte| byte == b'\n');
                    self.at += end.unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    /// Says that something else is here than `expected`.
    pub(super) fn unexpected(&self, expected: &'static str) -> TextError {
        let rest = &self.text[self.at..];
        let found = match self.word() {
            _ if rest.is_empty() => return self.error(self.at, Problem::End),
            [] => {
                let most = &rest[..rest.len().min(4)];
                let first = most
                    .utf8_chunks()
                    .next()
                    .and_then(|chunk| chunk.valid().chars().next());
                first.unwrap_or(char::REPLACEMENT_CHARACTER).to_string()
            }
            word => String::from_utf8_lossy(&word[..word.len().min(64)]).into_owned(),
        };
        self.error(self.at, Problem::Unexpected { expected, found })
    }

    pub(super) fn error(&self, at: usize, problem: Problem) -> TextError {
        let before = &self.text[..at];
        let line = before.split(|&byte| byte == b'\n').count();
        let begun = before
            .rsplit(|&byte| byte == b'\n')
            .next()
            .unwrap_or_default();
        TextError {
            line,
            column: String::from_utf8_lossy(begun).chars().count() + 1,
            problem,
        }
    }

    /// Passes over a value that is neither a message nor a list.
    pub(super) fn skip_scalar(&mut self) -> Result<(), TextError> {
        if matches!(self.peek(), Some(b'"' | b'\'')) {
            return self.bytes().map(drop);
        }
        let start = self.at;
        let is_negative = self.take(b'-');
        // A number may stand apart from its sign, `-inf` may not.
        let is_apart = is_negative && self.at > start + 1;
        let word = self.word();
        if is_number(word) || is_identifier(word) && !is_apart {
            self.pass(word.len());
            Ok(())
        } else {
            self.at = start;
            Err(self.unexpected("a value"))
        }
    }

    /// Passes over the name of an extension or of a type, in its brackets.
    pub(super) fn skip_extension(&mut self) -> Result<(), TextError> {
        const EXPECTED: &str = "the name of an extension";
        self.pass(1);
        loop {
            let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            let part = self.text[self.at..].iter().take_while(is_part).count();
            if part == 0 {
                return Err(self.unexpected(EXPECTED));
            }
            self.pass(part);
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b'.') && !self.take(b'/') {
                return Err(self.unexpected(EXPECTED));
            }
        }
    }

    /// Reads a string that is text.
    pub(super) fn text_string(&mut self) -> Result<String, TextError> {
        let at = self.at;
        let bytes = self.bytes()?;
        String::from_utf8(bytes).map_err(|_| self.error(at, Problem::Utf8))
    }

    /// Reads a string, which may be in several parts.
    fn bytes(&mut self) -> Result<Vec<u8>, TextError> {
        let mut bytes = Vec::new();
        let Some(mut mark @ (b'"' | b'\'')) = self.peek() else {
            return Err(self.unexpected("a string"));
        };
        loop {
            self.quoted(mark, &mut bytes)?;
            match self.peek() {
                Some(next @ (b'"' | b'\'')) => mark = next,
                _ => return Ok(bytes),
            }
        }
    }

    /// Reads a part of a string, between two of `mark`.
    fn quoted(&mut self, mark: u8, bytes: &mut Vec<u8>) -> Result<(), TextError> {
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let special = |&byte: &u8| byte == mark || matches!(byte, b'\\' | b'\n' | 0);
            let Some(plain) = rest.iter().position(special) else {
                self.at = self.text.len();
                return Err(self.error(self.at, Problem::End));
            };
            if let Err(error) = str::from_utf8(&rest[..plain]) {
                return Err(self.error(self.at + error.valid_up_to(), Problem::Utf8));
            }
            bytes.extend(&rest[..plain]);
            self.at += plain;
            match rest[plain] {
                b'\\' => self.escape(bytes)?,
                byte if byte == mark => {
                    self.pass(1);
                    return Ok(());
                }
                byte => {
                    let character = char::from(byte).to_string();
                    return Err(self.error(self.at, Problem::Character(character)));
                }
            }
        }
    }

    /// Reads a backslash and what it begins.
    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), TextError> {
        let rest = &self.text[self.at + 1..];
        let (length, escaped) = escape::read(rest);
        match escaped {
            Some(Escaped::Byte(byte)) => bytes.push(byte),
            Some(Escaped::Character(character)) => {
                bytes.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            None if length == rest.len() => {
                return Err(self.error(self.text.len(), Problem::End));
            }
            None => {
                let code = String::from_utf8_lossy(&self.text[self.at..=self.at + length]);
                return Err(self.error(self.at, Problem::Escape(code.into_owned())));
            }
        }
        self.at += 1 + length;
        Ok(())
    }
}

pub(super) fn is_identifier(word: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    word.first().is_some_and(|first| !first.is_ascii_digit()) && word.iter().all(is_part)
}

/// Tells whether `word` is a number, of any type and without its sign.
pub(super) fn is_number(word: &[u8]) -> bool {
    if let [b'0', b'x' | b'X', digits @ ..] = word {
        return !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    }
    if let [b'0', b'0'..=b'7', digits @ ..] = word {
        return digits.iter().all(|digit| matches!(digit, b'0'..=b'7'));
    }
    let digits = |word: &[u8]| word.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = match word {
        [b'0', rest @ ..] => rest,
        [b'1'..=b'9', ..] => &word[digits(word)..],
        [b'.', b'0'..=b'9', ..] => word,
        _ => return false,
    };
    if let [b'.', fraction @ ..] = rest {
        rest = &fraction[digits(fraction)..];
    }
    if let [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] = rest
        && let [b'0'..=b'9', ..] = exponent
    {
        rest = &exponent[digits(exponent)..];
    }
    matches!(rest, [] | [b'f' | b'F'])
}
