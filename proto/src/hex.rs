//! Lowercase hex, the text form of digests.

use crate::{escape, quote};

/// An error in a hex string. The texts are the reference's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HexError {
    /// The string is empty.
    #[error("empty hex string")]
    Empty,
    /// The number of digits is odd.
    #[error("uneven number of symbols in the hex string")]
    Uneven,
    /// A character is not a lowercase hex digit.
    #[error("bad lowercase hex string {}, wrong char {}", quote(string), escape(wrong.encode_utf8(&mut [0; 4])))]
    #[non_exhaustive]
    Digit {
        /// The string.
        string: String,
        /// Its first wrong character.
        wrong: char,
    },
}

/// Encodes bytes as lowercase hex.
///
/// ```
/// assert_eq!(admission_proto::hex::encode(&[0, 0xab]), "00ab");
/// ```
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Decodes lowercase hex of at least one byte.
///
/// # Errors
///
/// [`HexError`] if `string` is empty, has an odd length or has another character.
pub fn decode(string: &str) -> Result<Vec<u8>, HexError> {
    if string.is_empty() {
        return Err(HexError::Empty);
    }
    if !string.len().is_multiple_of(2) {
        return Err(HexError::Uneven);
    }
    if let Some(wrong) = string.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='f')) {
        return Err(HexError::Digit {
            string: string.to_owned(),
            wrong,
        });
    }
    let byte = |at| u8::from_str_radix(&string[at..at + 2], 16).expect("two hex digits");
    Ok((0..string.len()).step_by(2).map(byte).collect())
}
