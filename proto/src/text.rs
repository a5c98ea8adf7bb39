//! Untrusted text and bytes, prepared for one line of a log or a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Maximum number of bytes that [`quote_bytes`] shows.
const MAX_QUOTED: usize = 64;

/// Escapes control characters, line separators and bidirectional overrides, which could move
/// the cursor, end the line or reorder the text.
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

/// Shortens `text` to at most `limit` bytes, cutting between two characters.
///
/// The result ends with ` (truncated, N bytes)`, where N is the original length, unless
/// `limit` leaves no room for that.
///
/// ```
/// use admission_proto::truncate;
///
/// assert_eq!(truncate("short", 30), "short");
/// assert_eq!(truncate(&"x".repeat(100), 25), "xx (truncated, 100 bytes)");
/// ```
#[must_use]
pub fn truncate(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let mark = format!(" (truncated, {} bytes)", text.len());
    match limit.checked_sub(mark.len()) {
        Some(kept) => Cow::Owned(format!("{}{mark}", &text[..text.floor_char_boundary(kept)])),
        None => Cow::Borrowed(&text[..text.floor_char_boundary(limit)]),
    }
}

/// Quotes `bytes` as a string literal. Shows at most 64 bytes, and then the number of omitted
/// bytes.
#[must_use]
pub fn quote_bytes(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(MAX_QUOTED)];
    let mut out = format!("\"{}\"", shown.escape_ascii());
    if bytes.len() > MAX_QUOTED {
        write!(out, " and {} more bytes", bytes.len() - MAX_QUOTED)
            .expect("writing to a string cannot fail");
    }
    out
}

/// Quotes text like Go's `%q`, so that error texts equal those of the reference. Unlike Go,
/// it escapes combining marks.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let written = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\x07' => out.write_str(r"\a"),
            '\x08' => out.write_str(r"\b"),
            '\t' => out.write_str(r"\t"),
            '\n' => out.write_str(r"\n"),
            '\x0b' => out.write_str(r"\v"),
            '\x0c' => out.write_str(r"\f"),
            '\r' => out.write_str(r"\r"),
            '\0'..='\x7f' if c.is_control() => write!(out, r"\x{:02x}", u32::from(c)),
            // `escape_debug` would also escape single quotes.
            _ if c.escape_debug().len() == 1 || c == '\'' => out.write_char(c),
            ..='\u{ffff}' => write!(out, r"\u{:04x}", u32::from(c)),
            _ => write!(out, r"\U{:08x}", u32::from(c)),
        };
        written.expect("writing to a string cannot fail");
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
    fn control_characters_are_escaped() {
        assert_eq!(
            escape("a\x1b[2Jb\r\n\x07\u{9b}31m\0"),
            r"a\u{1b}[2Jb\r\n\u{7}\u{9b}31m\u{0}"
        );
    }

    #[test]
    fn invisible_and_bidirectional_characters_are_escaped() {
        assert_eq!(
            escape("\u{202e}gpj\u{2066}.\u{200b}\u{2028}\u{feff}"),
            r"\u{202e}gpj\u{2066}.\u{200b}\u{2028}\u{feff}"
        );
    }

    #[test]
    fn printable_text_of_any_script_is_unchanged() {
        let text = r#"naïve "café" \ 東京 🦀 'x'"#;
        assert_eq!(escape(text), text);
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_marked() {
        assert_eq!(truncate("0123456789", 10), "0123456789");
        let long = "\u{e9}".repeat(50);
        let short = truncate(&long, 30);
        assert_eq!(short, "\u{e9}\u{e9}\u{e9} (truncated, 100 bytes)");
        assert_eq!(short.len(), 29);
    }

    #[test]
    fn a_limit_shorter_than_the_mark_leaves_the_mark_out() {
        assert_eq!(truncate(&"\u{e9}".repeat(50), 5), "\u{e9}\u{e9}");
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
