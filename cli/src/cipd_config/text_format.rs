//! The configuration file of `cipd`: the message `cipd.client.config.ClientConfig` in
//! protobuf's text format.
//!
//!     plugins {
//!       admission {
//!         cmd: "/opt/policy"
//!         args: "--strict"
//!       }
//!     }
//!
//! Unknown fields are skipped, as in `cipd`, so that an old client can read the file of a newer
//! one. This parser exists because the published crates for the format refuse such fields. It
//! refuses rare spellings that `cipd` accepts: fields named by number, extensions, scalars
//! without a colon, and escapes that protobuf does not print itself.

use std::fmt::Display;

use admission_proto::quote;
use anyhow::anyhow;

/// Deepest nesting of messages. Limits the stack that a file can use.
const MAX_DEPTH: usize = 100;

/// The fields that are not repeated.
const SINGULAR: [&[&str]; 3] = [
    &["plugins"],
    &["plugins", "admission"],
    &["plugins", "admission", "cmd"],
];

/// The admission plugin of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AdmissionPlugin {
    /// The program; empty if the file names none.
    pub(super) cmd: String,
    pub(super) args: Vec<String>,
}

impl AdmissionPlugin {
    /// Reads a whole file. The text of an error begins with the line number.
    pub(super) fn read(text: &[u8]) -> anyhow::Result<Self> {
        let text = str::from_utf8(text).map_err(|error| {
            let valid = &text[..error.valid_up_to()];
            let line = valid.split(|&byte| byte == b'\n').count();
            anyhow!("{line}: not valid UTF-8")
        })?;
        let mut parser = Parser {
            text,
            rest: text,
            path: Vec::new(),
            seen: Vec::new(),
            plugin: Self::default(),
        };
        parser.parse_fields(None)?;
        Ok(parser.plugin)
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    /// The names of the fields whose values are being parsed, the outermost first.
    path: Vec<&'a str>,
    /// The paths of [`SINGULAR`] that were parsed.
    seen: Vec<&'static [&'static str]>,
    plugin: AdmissionPlugin,
}

impl<'a> Parser<'a> {
    /// Parses fields up to `end`, or to the end of the text.
    fn parse_fields(&mut self, end: Option<char>) -> anyhow::Result<()> {
        loop {
            if self.peek() == end {
                self.rest = self.rest.get(1..).unwrap_or_default();
                return Ok(());
            }
            self.parse_field()?;
            let _separator = self.take(',') || self.take(';');
        }
    }

    fn parse_field(&mut self) -> anyhow::Result<()> {
        if !self
            .rest
            .starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        {
            return Err(self.unexpected("the name of a field"));
        }
        let field = self.rest;
        let name = self.take_word("");
        self.path.push(name);
        if self.path.len() > MAX_DEPTH {
            return Err(self.error(
                field,
                format_args!("nested more than {MAX_DEPTH} levels deep"),
            ));
        }
        if let Some(path) = SINGULAR.into_iter().find(|path| *path == self.path) {
            if self.seen.contains(&path) {
                let name = quote(path[path.len() - 1]);
                return Err(
                    self.error(field, format_args!("non-repeated field {name} is repeated"))
                );
            }
            self.seen.push(path);
        }
        if !self.take(':') && !matches!(self.peek(), Some('{' | '<' | '[')) {
            return Err(self.unexpected("`:`"));
        }
        if self.peek() == Some('[') && !SINGULAR.contains(&&*self.path) {
            self.parse_list()?;
        } else {
            self.parse_value()?;
        }
        self.path.pop();
        Ok(())
    }

    fn parse_list(&mut self) -> anyhow::Result<()> {
        self.take('[');
        if self.take(']') {
            return Ok(());
        }
        loop {
            self.parse_value()?;
            if self.take(']') {
                return Ok(());
            }
            if !self.take(',') {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
    }

    /// Parses a value that is not a list.
    fn parse_value(&mut self) -> anyhow::Result<()> {
        let first = self.peek();
        match (&*self.path, first) {
            (["plugins"] | ["plugins", "admission"], Some('{' | '<')) => {}
            (["plugins"] | ["plugins", "admission"], _) => {
                return Err(self.unexpected("a message"));
            }
            (["plugins", "admission", "cmd"], Some('"' | '\'')) => {
                self.plugin.cmd = self.parse_string()?;
                return Ok(());
            }
            (["plugins", "admission", "args"], Some('"' | '\'')) => {
                let arg = self.parse_string()?;
                self.plugin.args.push(arg);
                return Ok(());
            }
            (["plugins", "admission", "cmd" | "args"], _) => {
                return Err(self.unexpected("a string"));
            }
            _ => {}
        }
        if self.take('{') {
            self.parse_fields(Some('}'))
        } else if self.take('<') {
            self.parse_fields(Some('>'))
        } else if matches!(first, Some('"' | '\'')) {
            self.parse_string().map(drop)
        } else {
            // A number, or the name of an enum value.
            self.take('-');
            match self.take_word("+-.") {
                "" => Err(self.unexpected("a value")),
                _ => Ok(()),
            }
        }
    }

    /// Parses a string, which may consist of several quoted parts.
    fn parse_string(&mut self) -> anyhow::Result<String> {
        let start = self.rest;
        let mut bytes = Vec::new();
        while let Some(mark @ ('"' | '\'')) = self.peek() {
            self.rest = &self.rest[1..];
            loop {
                match self.rest.chars().next() {
                    None | Some('\n' | '\0') => {
                        return Err(self.unexpected("the end of the string"));
                    }
                    Some('\\') => bytes.push(self.parse_escape()?),
                    Some(c) => {
                        self.rest = &self.rest[c.len_utf8()..];
                        if c == mark {
                            break;
                        }
                        bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
            }
        }
        String::from_utf8(bytes).map_err(|_| self.error(start, "not valid UTF-8"))
    }

    fn parse_escape(&mut self) -> anyhow::Result<u8> {
        let escape = &self.rest[1..];
        let (digits, most, radix) = match escape.strip_prefix('x') {
            Some(digits) => (digits, 2, 16),
            None => (escape, 3, 8),
        };
        let is_digit = |c: &char| c.is_digit(radix);
        let length = digits.chars().take(most).take_while(is_digit).count();
        let (digits, after) = digits.split_at(length);
        if let Ok(byte) = u8::from_str_radix(digits, radix) {
            self.rest = after;
            return Ok(byte);
        }
        let byte = match escape.as_bytes().first() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(byte @ (b'"' | b'\'' | b'\\')) => *byte,
            _ => return Err(self.unexpected("an escape sequence")),
        };
        self.rest = &escape[1..];
        Ok(byte)
    }

    /// Takes the longest run of letters, digits, `_` and the characters of `others`.
    fn take_word(&mut self, others: &str) -> &'a str {
        self.peek();
        let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '_' && !others.contains(c);
        let (word, rest) = self
            .rest
            .split_at(self.rest.find(is_end).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn take(&mut self, token: char) -> bool {
        let found = self.peek() == Some(token);
        self.rest = &self.rest[usize::from(found)..];
        found
    }

    /// Skips blanks and comments, and returns the character after them.
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_ascii_start();
        while let Some(comment) = self.rest.strip_prefix('#') {
            let end = comment.find('\n').unwrap_or(comment.len());
            self.rest = comment[end..].trim_ascii_start();
        }
        self.rest.chars().next()
    }

    fn unexpected(&self, expected: &str) -> anyhow::Error {
        let found = match self.rest.chars().next() {
            None => "the end of the file".to_owned(),
            Some(c) => quote(c.encode_utf8(&mut [0; 4])),
        };
        self.error(
            self.rest,
            format_args!("expected {expected}, found {found}"),
        )
    }

    /// Returns an error with the number of the line on which `rest` begins. `rest` must be the
    /// end of the text.
    fn error(&self, rest: &str, problem: impl Display) -> anyhow::Error {
        let before = &self.text[..self.text.len() - rest.len()];
        anyhow!("{}: {problem}", before.split('\n').count())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let AdmissionPlugin { cmd, args } =
            AdmissionPlugin::read(text.as_bytes()).map_err(|error| error.to_string())?;
        Ok([cmd].into_iter().chain(args).collect())
    }

    /// Reads the fields of `admission`, on the second line.
    fn admission(fields: &str) -> Result<Vec<String>, String> {
        read(&format!("plugins {{ admission {{\n{fields}\n}} }}"))
    }

    fn argv(argv: &[&str]) -> Result<Vec<String>, String> {
        Ok(argv.iter().map(|&arg| arg.to_owned()).collect())
    }

    #[test]
    fn every_spelling_of_a_plugin_is_read() {
        for text in [
            "plugins { admission { cmd: 'p' args: 'a' args: 'b' } }",
            "plugins{admission{cmd:'p'args:'a'args:'b'}}",
            "plugins: < admission: < cmd: 'p'; args: ['a', 'b']; >; >;",
            "plugins: { admission: { args: [ 'a' ], args: \"b\", cmd: 'p', }, },",
            "# whole\r\nplugins # to the end {\n:{\tadmission{cmd # }\n:'p' args :['a'#\n,'b']}}#",
            "plugins { admission { args: [] cmd: 'p' args: ['a'] args: ['b'] } }",
        ] {
            assert_eq!(read(text), argv(&["p", "a", "b"]), "{text}");
        }
    }

    #[test]
    fn a_file_without_a_plugin_has_an_empty_program() {
        for text in ["", " # nothing\n", "plugins {}", "plugins { admission <> }"] {
            assert_eq!(read(text), argv(&[""]), "{text}");
        }
        assert_eq!(admission("args: 'a'"), argv(&["", "a"]));
    }

    #[test]
    fn strings_may_have_escapes_and_parts() {
        assert_eq!(
            admission(
                r#"cmd: "it's \"\x41\101é" ' "\n' # and
                      '' "z\\\t" args: '\303\2517'"#
            ),
            argv(&["it's \"AAé \"\nz\\\t", "é7"])
        );
    }

    #[test]
    fn unknown_fields_are_skipped() {
        for field in [
            "x: 1",
            "x: -1; y: - 2, z: 0x1F y: 1.5e-3f y: .5 y: 1E+9F",
            "x: NAME y: true z: -inf",
            "x: 'a' \"b\"",
            "x {} y < > z: {}",
            "x { cmd: 'no' y { cmd: 'no' } } z < plugins { admission { cmd: 'no' } }; >,",
            "x: [] x: [1, 2] x: ['a' 'b', 'c'] x: [{}, <y: 1>, { y: [1] }, 5] x [{}]",
            "Cmd: 'no' cmdline: 'no' _cmd: 'no'",
        ] {
            for text in [
                format!("{field} plugins {{ admission {{ cmd: 'p' }} }} {field}"),
                format!("plugins {{ {field} admission {{ cmd: 'p' }} {field} }}"),
                format!("plugins {{ admission {{ {field} cmd: 'p' {field} }} }}"),
            ] {
                assert_eq!(read(&text), argv(&["p"]), "{text}");
            }
        }
    }

    #[test]
    fn a_malformed_text_is_refused_with_its_line() {
        for (text, refused) in [
            (
                "plugins {",
                "1: expected the name of a field, found the end of the file",
            ),
            ("plugins", "1: expected `:`, found the end of the file"),
            (
                "plugins {\n }}",
                r#"2: expected the name of a field, found "}""#,
            ),
            (
                "plugins {\n\n>",
                r#"3: expected the name of a field, found ">""#,
            ),
            ("plugins: 'p'", r#"1: expected a message, found "'""#),
            ("plugins: [{}]", r#"1: expected a message, found "[""#),
            (
                "plugins {}\nplugins {}",
                r#"2: non-repeated field "plugins" is repeated"#,
            ),
            (
                "plugins { admission {} admission {} }",
                r#"1: non-repeated field "admission" is repeated"#,
            ),
            ("1 { }", r#"1: expected the name of a field, found "1""#),
            ("[a]: 1", r#"1: expected the name of a field, found "[""#),
            (";", r#"1: expected the name of a field, found ";""#),
            (
                "x: 1,, y: 2",
                r#"1: expected the name of a field, found ",""#,
            ),
            (
                "\u{feff}plugins {}",
                r#"1: expected the name of a field, found "\ufeff""#,
            ),
            ("x-y: 1", r#"1: expected `:`, found "-""#),
            ("x 'a'", r#"1: expected `:`, found "'""#),
            ("x: [1, ]", r#"1: expected a value, found "]""#),
            ("x: [1 2]", r#"1: expected `,` or `]`, found "2""#),
            ("x: [[1]]", r#"1: expected a value, found "[""#),
            ("x: [{]", r#"1: expected the name of a field, found "]""#),
            ("x: ;", r#"1: expected a value, found ";""#),
            ("é", r#"1: expected the name of a field, found "é""#),
        ] {
            assert_eq!(read(text), Err(refused.to_owned()), "{text}");
        }
        for (fields, refused) in [
            ("cmd 'p'", r#"2: expected `:`, found "'""#),
            ("args ['p'", "3: expected `,` or `]`, found \"}\""),
            ("cmd: p", r#"2: expected a string, found "p""#),
            ("cmd: ['p']", r#"2: expected a string, found "[""#),
            ("args: [1]", r#"2: expected a string, found "1""#),
            (
                "cmd: 'p'\ncmd: 'q'",
                r#"3: non-repeated field "cmd" is repeated"#,
            ),
            ("args: ['a', ]", r#"2: expected a string, found "]""#),
            (
                r"cmd: 'é\8'",
                r#"2: expected an escape sequence, found "\\""#,
            ),
            (
                r"cmd: '\x'",
                r#"2: expected an escape sequence, found "\\""#,
            ),
            (
                r"cmd: '\400'",
                r#"2: expected an escape sequence, found "\\""#,
            ),
            (r"cmd: '\xff'", "2: not valid UTF-8"),
            (
                "cmd: 'a",
                r#"2: expected the end of the string, found "\n""#,
            ),
            (
                "cmd: 'a\0'",
                r#"2: expected the end of the string, found "\x00""#,
            ),
        ] {
            assert_eq!(admission(fields), Err(refused.to_owned()), "{fields}");
        }
        let refused = |text: &[u8]| AdmissionPlugin::read(text).unwrap_err().to_string();
        assert_eq!(refused(b"x: 1\ny: 'a\xff'"), "2: not valid UTF-8");
    }

    #[test]
    fn the_depth_of_messages_is_bounded() {
        let nested = |depth: usize| read(&format!("{}{}", "x{".repeat(depth), "}".repeat(depth)));
        assert_eq!(nested(MAX_DEPTH), argv(&[""]));
        let refused = Err("1: nested more than 100 levels deep".to_owned());
        assert_eq!(nested(MAX_DEPTH + 1), refused);
        assert_eq!(nested(200_000), refused);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(text in any::<Vec<u8>>()) {
            let _ = AdmissionPlugin::read(&text);
        }

        #[test]
        fn no_text_that_looks_like_a_file_makes_the_parser_panic(
            text in "(plugins|admission|cmd|args|x|[1-9]|'|\"|[\\\\]|[{}<>:;,#.\n-]|\\[|\\]|u|.){0,40}",
        ) {
            let _ = AdmissionPlugin::read(text.as_bytes());
        }

        #[test]
        fn every_command_line_is_read_back(cmd: String, args: Vec<String>) {
            let literal = |text: &String| {
                let bytes = text.bytes().map(|byte| format!("\\{byte:o}\"\""));
                format!("\"{}\"", bytes.collect::<String>())
            };
            let list: Vec<_> = args.iter().map(literal).collect();
            let fields = format!("cmd: {} args: [{}]", literal(&cmd), list.join(", "));
            let argv = [cmd].into_iter().chain(args).collect();
            prop_assert_eq!(admission(&fields), Ok(argv));
        }
    }
}
