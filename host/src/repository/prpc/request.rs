//! What the service is asked.

use std::time::Duration;

use admission_proto::wire::{Message as _, cipd};
use bytes::Bytes;

use crate::repository::ListMetadata;

/// Units of a timeout, from the smallest: nanoseconds in one, and the letter.
const UNITS: [(u128, char); 6] = [
    (1, 'n'),
    (1_000, 'u'),
    (1_000_000, 'm'),
    (1_000_000_000, 'S'),
    (60_000_000_000, 'M'),
    (3_600_000_000_000, 'H'),
];

/// Largest number that a timeout may have in its unit.
const MOST: u128 = 99_999_999;

/// Returns the bytes of the request. The service has numbers of its own for its fields:
/// those of the plugin's request would name others.
pub(super) fn encode(request: ListMetadata) -> Bytes {
    let ListMetadata {
        service_url: _,
        package,
        instance,
        keys,
        page_size,
        page_token,
    } = request;
    let message = cipd::ListMetadataRequest {
        package,
        instance: Some(instance.into()),
        keys,
        page_size,
        page_token,
    };
    message.encode_to_vec().into()
}

/// Spells a timeout: in the smallest unit in which it has at most eight digits, rounded up.
pub(super) fn timeout(left: Duration) -> String {
    let nanos = left.as_nanos();
    let mut spelled = UNITS
        .iter()
        .map(|&(unit, letter)| (nanos.div_ceil(unit), letter));
    let fitting = spelled.find(|&(number, _)| number <= MOST);
    let (number, letter) = fitting.unwrap_or((MOST, 'H'));
    format!("{number}{letter}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_numbers_of_the_service() {
        let request = ListMetadata {
            package: "p".into(),
            keys: vec!["k".into()],
            page_size: 7,
            page_token: "t".into(),
            ..ListMetadata::default()
        };
        let expected = [
            &[0x0a, 1, b'p', 0x12, 0, 0x1a, 1, b'k'][..],
            &[0xa0, 0x01, 7, 0xaa, 0x01, 1, b't'],
        ];
        assert_eq!(encode(request), expected.concat());
    }

    #[test]
    fn a_timeout_has_the_smallest_unit_in_which_it_fits() {
        for (left, spelled) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_001), "100001u"),
            (Duration::from_secs(60), "60000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(100_000_000), "1666667M"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(timeout(left), spelled);
        }
    }
}
