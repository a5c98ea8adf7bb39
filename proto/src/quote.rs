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

fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}
