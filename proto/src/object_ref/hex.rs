//! Lowercase hex, as digests are spelled.

use crate::quote::{escape, quote};

/// What is wrong with a hex string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HexError {
    /// There are no digits.
    #[error("empty hex string")]
    Empty,
    /// The number of digits is odd.
    #[error("uneven number of symbols in the hex string")]
    Uneven,
    /// A character is not a lowercase hex digit.
    #[error("bad lowercase hex string {}, wrong char {}", quote(string), escape(wrong.encode_utf8(&mut [0; 4])))]
    Digit {
        /// The string.
        string: String,
        /// Its first wrong character.
        wrong: char,
    },
}

/// Checks that `string` is whole bytes in lowercase hex, at least one.
pub(super) fn check(string: &str) -> Result<(), HexError> {
    if string.is_empty() {
        return Err(HexError::Empty);
    }
    if !string.len().is_multiple_of(2) {
        return Err(HexError::Uneven);
    }
    match string.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='f')) {
        None => Ok(()),
        Some(wrong) => Err(HexError::Digit {
            string: string.to_owned(),
            wrong,
        }),
    }
}

/// Spells bytes in lowercase hex.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Reads hex that [`check`] has accepted.
pub(crate) fn hex_bytes(string: &str) -> impl Iterator<Item = u8> + '_ {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit - b'a' + 10,
    };
    string
        .as_bytes()
        .chunks_exact(2)
        .map(move |pair| nibble(pair[0]) << 4 | nibble(pair[1]))
}
