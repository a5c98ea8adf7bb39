//! What stands in strings for characters that cannot.

/// What one escape stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Escaped {
    /// A byte of UTF-8, which may be a part of a character.
    Byte(u8),
    Character(char),
}

/// Reads the escape of which `text` is all that follows its backslash. Returns its length
/// and what it stands for, if it is a good one.
pub(super) fn read(text: &[u8]) -> (usize, Option<Escaped>) {
    let byte = match text.first() {
        Some(byte @ (b'"' | b'\'' | b'\\' | b'?')) => *byte,
        Some(b'a') => 0x07,
        Some(b'b') => 0x08,
        Some(b'f') => 0x0c,
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'v') => 0x0b,
        Some(b'0'..=b'7') => return byte(text, 0, 3, 8),
        Some(b'x') => return byte(text, 1, 2, 16),
        Some(b'u') => return character(text, 4),
        Some(b'U') => return character(text, 8),
        Some(_) => return (1, None),
        None => return (0, None),
    };
    (1, Some(Escaped::Byte(byte)))
}

fn byte(text: &[u8], from: usize, most: usize, radix: u32) -> (usize, Option<Escaped>) {
    let (count, value) = number(&text[from..], most, radix);
    let byte = value.and_then(|value| value.try_into().ok());
    (from + count, byte.map(Escaped::Byte))
}

/// Reads a character of `digits` digits, or of two halves, as in UTF-16.
fn character(text: &[u8], digits: usize) -> (usize, Option<Escaped>) {
    let (count, value) = number(&text[1..], digits, 16);
    let length = 1 + count;
    let (length, value) = match value {
        Some(_) if count < digits => (length, None),
        Some(high @ 0xd800..0xdc00) if text[length..].starts_with(br"\u") => {
            let (count, low) = number(&text[length + 2..], 4, 16);
            let value = match low {
                Some(low @ 0xdc00..0xe000) => {
                    Some(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))
                }
                _ => None,
            };
            (length + 2 + count, value)
        }
        value => (length, value),
    };
    let character = value.and_then(char::from_u32);
    (length, character.map(Escaped::Character))
}

/// Reads a number of `most` digits at most; without a digit there is none.
fn number(text: &[u8], most: usize, radix: u32) -> (usize, Option<u32>) {
    let is_digit = |&&byte: &&u8| char::from(byte).is_digit(radix);
    let count = text.iter().take(most).take_while(is_digit).count();
    let digits = str::from_utf8(&text[..count]).expect("digits are ASCII");
    (count, u32::from_str_radix(digits, radix).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_letters_octal_and_hexadecimal_numbers() {
        for (text, length, byte) in [
            ("n", 1, b'\n'),
            ("?x", 1, b'?'),
            ("0", 1, 0),
            ("0018", 3, 1),
            ("377", 3, 0xff),
            ("78", 1, 7),
            ("x4", 2, 4),
            ("xFf0", 3, 0xff),
        ] {
            let read = read(text.as_bytes());
            assert_eq!(read, (length, Some(Escaped::Byte(byte))), "{text}");
        }
    }

    #[test]
    fn characters_have_four_or_eight_digits_or_two_halves() {
        for (text, length, character) in [
            ("u00e9e", 5, 'é'),
            ("U0001F980", 9, '🦀'),
            (r"ud83e\udd80", 11, '🦀'),
        ] {
            let read = read(text.as_bytes());
            assert_eq!(
                read,
                (length, Some(Escaped::Character(character))),
                "{text}"
            );
        }
    }

    #[test]
    fn nothing_else_is_an_escape() {
        for text in [
            "",
            "8",
            "9",
            "e",
            "X41",
            "400",
            "777",
            "x",
            "xg",
            "u",
            "u12",
            "u12g4",
            "U0001F98",
            "U00110000",
            "ud83e",
            "udd80",
            r"ud83e\u0041",
            r"ud83e\udd8",
            r"ud83e\n",
            "\u{e9}",
        ] {
            assert_eq!(read(text.as_bytes()).1, None, "{text}");
        }
    }
}
