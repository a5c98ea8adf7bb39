//! Lists of pins, one a line.

use admission_host::{Pin, PinError};

use super::InputError;
use super::lines::Lines;

/// Reads one `package:instance_id` a line, between blank lines and comments.
pub(super) fn read(lines: &mut Lines, pins: &mut Vec<Pin>) -> Result<(), InputError> {
    while let Some(line) = lines.next()? {
        if !line.is_empty() {
            pins.push(
                line.parse()
                    .map_err(|problem: PinError| lines.broken(problem))?,
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::lines::LONGEST_LINE;
    use super::super::testing::{ID, lines};
    use super::*;

    fn pins(text: impl Into<Vec<u8>>) -> Result<Vec<String>, String> {
        let mut pins = Vec::new();
        read(&mut lines(text), &mut pins).map_err(|error| error.to_string())?;
        Ok(pins.iter().map(Pin::to_string).collect())
    }

    #[test]
    fn a_list_of_pins_may_have_comments_blanks_and_any_line_ends() {
        let text = format!("# two\r\n\r\na:{ID}\r\n  b/c:{ID}  \n\n# end");
        let expected = Ok(vec![format!("a:{ID}"), format!("b/c:{ID}")]);
        assert_eq!(pins(&*text), expected);
        let in_latin_1 = [b" # Z\xfcrich\n", text.as_bytes()].concat();
        assert_eq!(pins(in_latin_1), expected);
        assert_eq!(pins(""), Ok(vec![]));
    }

    #[test]
    fn the_first_broken_line_of_a_list_is_named() {
        let refusal = |text: &[u8]| pins(text).expect_err("it should be refused");
        assert_eq!(
            refusal(format!("a:{ID}\n\nnonsense\nworse").as_bytes()),
            "in:3: not a pin \"nonsense\": must be package:instance_id"
        );
        assert_eq!(refusal(b"# fine\n\xff\xfe\n"), "in:2: not valid UTF-8");
        assert_eq!(
            refusal("x".repeat(LONGEST_LINE + 1).as_bytes()),
            "in:1: longer than 65536 bytes"
        );
    }
}
