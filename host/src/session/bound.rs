//! Statuses cut to what is kept or sent of them.

use admission_proto::{Detail, Status};

/// Cuts the message after `message` bytes, and drops the details if they have more than
/// `details` bytes. Both stand in the message then.
pub(crate) fn bound(status: &mut Status, message: usize, details: usize) {
    let length = status.message.len();
    if length > message {
        let end = status.message.floor_char_boundary(message);
        status.message.truncate(end);
        let cut = format!(" (truncated, {length} bytes)");
        status.message.push_str(&cut);
    }
    let size = |detail: &Detail| detail.type_url.len() + detail.value.len();
    let size: usize = status.details.iter().map(size).sum();
    if size > details {
        status.details.clear();
        let dropped = format!(" (details dropped, {size} bytes)");
        status.message.push_str(&dropped);
    }
}
