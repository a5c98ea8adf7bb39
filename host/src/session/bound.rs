//! Statuses cut to what is kept or sent of them.

use admission_proto::{Detail, Status};

/// Room for what is said of both cuts, in bytes. A message may exceed its limit by this,
/// so that what was cut once is not cut again on its way through several hosts.
const MARKS: usize = 96;

/// Cuts the message after `message` bytes, and drops the details if they have more than
/// `details` bytes. Both stand in the message then.
pub(crate) fn bound(status: &mut Status, message: usize, details: usize) {
    let size = |detail: &Detail| detail.type_url.len() + detail.value.len();
    let size: usize = status.details.iter().map(size).sum();
    let dropped = size > details;
    let length = status.message.len();
    if length > message + if dropped { 0 } else { MARKS } {
        let end = status.message.floor_char_boundary(message);
        status.message.truncate(end);
        let cut = format!(" (truncated, {length} bytes)");
        status.message.push_str(&cut);
    }
    if dropped {
        status.details.clear();
        let dropped = format!(" (details dropped, {size} bytes)");
        status.message.push_str(&dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_once_is_not_cut_again() {
        for length in [0, 100, 101, 150, 196, 197, 300, 100_000] {
            for size in [0, 9, 10, 100_000] {
                let detail = Detail {
                    type_url: "t".into(),
                    value: vec![0; size],
                };
                let mut once = Status::denied("x".repeat(length)).with_detail(detail);
                bound(&mut once, 100, 10);
                let mut twice = once.clone();
                bound(&mut twice, 100, 10);
                assert_eq!(twice, once, "{length} {size}");
            }
        }
    }
}
