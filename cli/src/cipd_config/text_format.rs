//! Protobuf's text format, read for a few fields; the rest is passed over.
//!
//! Follows the reader of Go's `prototext`, which decides what `cipd` can read. There are
//! crates for the format, but none that ignores fields it does not know, as `cipd` does
//! so that an old client can read the file of a newer one.

mod escape;
mod scanner;

use self::scanner::{Problem, Scanner, is_identifier, is_number};

pub(crate) use self::scanner::TextError;

/// Largest number of a field.
const MOST_FIELD_NUMBER: u32 = (1 << 29) - 1;

/// A message that is read from its beginning to its end.
pub(super) struct Reader<'a> {
    text: Scanner<'a>,
}

/// A field of which the name was read, and not yet the value.
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    at: usize,
    has_colon: bool,
}

/// How a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    OfText,
    Brace,
    AngleBracket,
}

enum Name<'a> {
    Identifier(&'a str),
    Number(u32),
    Extension,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            text: Scanner::new(text),
        }
    }

    /// Reads up to the value of the next field that is `known`, or to the end of the
    /// message. The numbers of the known fields are 1, 2, 3 and so on.
    pub(super) fn next_field(
        &mut self,
        known: &[&str],
        end: End,
    ) -> Result<Option<Field<'a>>, TextError> {
        loop {
            match (self.text.peek(), end) {
                (None, End::OfText) => return Ok(None),
                (Some(b'}'), End::Brace) | (Some(b'>'), End::AngleBracket) => {
                    self.text.pass(1);
                    self.text.take_separator();
                    return Ok(None);
                }
                _ => {}
            }
            let at = self.text.place();
            let name = self.name()?;
            let has_colon = self.text.take(b':');
            match name {
                Name::Identifier(name) if known.contains(&name) => {
                    return Ok(Some(Field {
                        name,
                        at,
                        has_colon,
                    }));
                }
                Name::Number(number) if number as usize <= known.len() => {
                    return Err(self.text.error(at, Problem::Number(number)));
                }
                _ => self.skip_value()?,
            }
        }
    }

    /// Notes that `field` was seen, which it may be once.
    pub(super) fn once(&self, field: &Field<'_>, seen: &mut bool) -> Result<(), TextError> {
        if std::mem::replace(seen, true) {
            return Err(self
                .text
                .error(field.at, Problem::Repeated(field.name.to_owned())));
        }
        Ok(())
    }

    /// Reads the beginning of a value that is a message.
    pub(super) fn message(&mut self) -> Result<End, TextError> {
        if self.text.take(b'{') {
            Ok(End::Brace)
        } else if self.text.take(b'<') {
            Ok(End::AngleBracket)
        } else {
            Err(self.text.unexpected("a message"))
        }
    }

    /// Reads a value that is one string.
    pub(super) fn string(&mut self, field: &Field<'_>) -> Result<String, TextError> {
        self.demand_colon(field)?;
        let string = self.text.text_string()?;
        self.text.take_separator();
        Ok(string)
    }

    /// Reads a value that adds one string or a list of them to `strings`.
    pub(super) fn strings(
        &mut self,
        field: &Field<'_>,
        strings: &mut Vec<String>,
    ) -> Result<(), TextError> {
        self.demand_colon(field)?;
        if !self.text.take(b'[') {
            strings.push(self.text.text_string()?);
        } else if !self.text.take(b']') {
            strings.push(self.text.text_string()?);
            while !self.text.take(b']') {
                self.text.demand(b',', "`,` or `]`")?;
                strings.push(self.text.text_string()?);
            }
        }
        self.text.take_separator();
        Ok(())
    }

    /// Passes over any value.
    fn skip_value(&mut self) -> Result<(), TextError> {
        // What closes each list and message that is open. Not the stack of the thread: how
        // deep values are nested is up to the file.
        let mut open: Vec<u8> = Vec::new();
        loop {
            let mut whole = false;
            match self.text.peek() {
                Some(b'{') => open.push(b'}'),
                Some(b'<') => open.push(b'>'),
                Some(b'[') if open.last() != Some(&b']') => open.push(b']'),
                _ => whole = true,
            }
            if whole {
                self.text.skip_scalar()?;
            } else {
                self.text.pass(1);
            }
            // To the next value, if there is one.
            loop {
                let Some(&close) = open.last() else {
                    self.text.take_separator();
                    return Ok(());
                };
                let is_list = close == b']';
                if whole && !is_list {
                    self.text.take_separator();
                }
                if self.text.take(close) {
                    open.pop();
                    whole = true;
                    continue;
                }
                if !is_list {
                    self.name()?;
                    self.text.take(b':');
                } else if whole {
                    self.text.demand(b',', "`,` or `]`")?;
                }
                break;
            }
        }
    }

    fn name(&mut self) -> Result<Name<'a>, TextError> {
        if self.text.peek() == Some(b'[') {
            self.text.skip_extension()?;
            return Ok(Name::Extension);
        }
        let word = self.text.word();
        let text = str::from_utf8(word).expect("a word is ASCII");
        let name = if is_identifier(word) {
            Name::Identifier(text)
        } else {
            let is_decimal = is_number(word) && !word.starts_with(b"0");
            match text.parse() {
                Ok(number) if is_decimal && number <= MOST_FIELD_NUMBER => Name::Number(number),
                _ => return Err(self.text.unexpected("the name of a field")),
            }
        };
        self.text.pass(word.len());
        Ok(name)
    }

    fn demand_colon(&self, field: &Field<'_>) -> Result<(), TextError> {
        if field.has_colon {
            Ok(())
        } else {
            Err(self.text.error(field.at, Problem::Colon))
        }
    }
}
