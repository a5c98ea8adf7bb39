//! Foreign bytes and text, made fit for one line of a log or a terminal.

use std::fmt::Write as _;

/// Most bytes that a quotation shows.
const QUOTED: usize = 64;

/// Escapes what could move the cursor, end the line or reorder the text: control
/// characters, line separators and bidirectional overrides. Everything else stays.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Quotes the first 64 of `bytes` as a string literal, marking what was left out.
#[must_use]
pub fn quote_bytes(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(QUOTED)];
    let mut out = format!("\"{}\"", shown.escape_ascii());
    if bytes.len() > QUOTED {
        write!(out, " and {} more bytes", bytes.len() - QUOTED).expect("a string takes it");
    }
    out
}

/// Quotes text as Go's `%q` does, so that an error's text is the reference's, too.
/// Differs in combining marks, which it escapes.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let taken = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\x07' => out.write_str(r"\a"),
            '\x08' => out.write_str(r"\b"),
            '\t' => out.write_str(r"\t"),
            '\n' => out.write_str(r"\n"),
            '\x0b' => out.write_str(r"\v"),
            '\x0c' => out.write_str(r"\f"),
            '\r' => out.write_str(r"\r"),
            '\0'..='\x7f' if c.is_control() => write!(out, r"\x{:02x}", u32::from(c)),
            // What the standard library shows as it is; quotes were dealt with above.
            _ if c.escape_debug().len() == 1 || c == '\'' => out.write_char(c),
            ..='\u{ffff}' => write!(out, r"\u{:04x}", u32::from(c)),
            _ => write!(out, r"\U{:08x}", u32::from(c)),
        };
        taken.expect("a string takes it");
    }
    out.push('"');
    out
}

fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_move_the_cursor_or_end_the_line_is_escaped() {
        assert_eq!(
            escape("a\x1b[2Jb\r\n\x07\u{9b}31m\0"),
            r"a\u{1b}[2Jb\r\n\u{7}\u{9b}31m\u{0}"
        );
    }

    #[test]
    fn what_could_reorder_or_hide_text_is_escaped() {
        assert_eq!(
            escape("\u{202e}gpj\u{2066}.\u{200b}\u{2028}\u{feff}"),
            r"\u{202e}gpj\u{2066}.\u{200b}\u{2028}\u{feff}"
        );
    }

    #[test]
    fn ordinary_text_of_any_script_stays() {
        let text = r#"naïve "café" \ 東京 🦀 'x'"#;
        assert_eq!(escape(text), text);
    }

    #[test]
    fn bytes_are_quoted_as_a_literal_of_printable_ascii() {
        assert_eq!(quote_bytes(b""), r#""""#);
        assert_eq!(
            quote_bytes(b"Hello \"you\"\n\xff\x00\\"),
            r#""Hello \"you\"\n\xff\x00\\""#
        );
    }

    #[test]
    fn at_most_64_bytes_are_quoted_and_the_rest_is_counted() {
        let x64 = "x".repeat(64);
        assert_eq!(quote_bytes(x64.as_bytes()), format!("\"{x64}\""));
        assert_eq!(
            quote_bytes(&[b'x'; 1000]),
            format!("\"{x64}\" and 936 more bytes")
        );
    }

    #[test]
    fn text_is_quoted_as_the_reference_quotes_it() {
        for (text, quoted) in [
            ("", r#""""#),
            (r#"it's "\""#, r#""it's \"\\\"""#),
            ("\x07\x08\t\n\x0b\x0c\r", r#""\a\b\t\n\v\f\r""#),
            ("\0\x1b\x7f", r#""\x00\x1b\x7f""#),
            ("é東🦀", r#""é東🦀""#),
            (
                "\u{80}\u{202e}\u{a0}\u{feff}",
                r#""\u0080\u202e\u00a0\ufeff""#,
            ),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }
}
