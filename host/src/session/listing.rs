//! Converts metadata calls from messages of the wire, and replies to messages of the wire.

use admission_proto::wire::plugin::{ListMetadataRequest, ListMetadataResponse};
use admission_proto::wire::{Message, cipd};
use admission_proto::{Code, Detail, ObjectRef, Status, frame};

use crate::repository::{ListMetadata, MetadataPage};

/// Longest page that every plugin must accept, in bytes. Leaves room for the rest of its
/// frame.
const MAX_PAGE: usize = frame::PLUGIN_LIMIT - 32;

/// Longest message of an error reply, in bytes. With the details it must fit into the 16 KiB
/// of headers that many gRPC peers accept; escaping may triple its length.
const MAX_MESSAGE: usize = 2 << 10;

/// Most bytes of details of an error reply.
const MAX_DETAILS: usize = 4 << 10;

/// Room for the notes about truncation, in bytes. A message may exceed its limit by this, so
/// that the next host that forwards a truncated status does not truncate it again.
const NOTES: usize = 96;

/// Converts a request, without its service URL.
///
/// # Errors
///
/// INVALID_ARGUMENT if the request names no instance.
pub(super) fn to_request(request: ListMetadataRequest) -> Result<ListMetadata, Status> {
    let instance = ObjectRef::from_wire(request.instance)
        .map_err(|error| Status::new(Code::INVALID_ARGUMENT, format!("bad 'instance': {error}")))?;
    Ok(ListMetadata {
        package: request.package,
        instance,
        keys: request.keys,
        page_size: request.page_size,
        page_token: request.page_token,
        ..ListMetadata::default()
    })
}

/// Converts a reply into a page with its size in bytes, or an error. Applies the limits of both
/// wires, so that a policy gets equal replies over each.
pub(super) fn to_reply(
    page: Result<MetadataPage, Status>,
) -> Result<(ListMetadataResponse, usize), Status> {
    let page = page.map_err(to_error_reply)?;
    let response = ListMetadataResponse {
        metadata: page
            .metadata
            .into_iter()
            .map(cipd::InstanceMetadata::from)
            .collect(),
        next_page_token: page.next_page_token,
    };
    let length = response.encoded_len();
    if length <= MAX_PAGE {
        return Ok((response, length));
    }
    let text = format!("a page of metadata takes {length} bytes, over the limit of {MAX_PAGE}");
    Err(Status::new(Code::RESOURCE_EXHAUSTED, text))
}

fn to_error_reply(mut status: Status) -> Status {
    // gRPC defines no other codes. OK is an error here, and must not look like a page.
    if !(1..=16).contains(&status.code.number()) {
        status.code = Code::UNKNOWN;
    }
    bound_status(&mut status, MAX_MESSAGE, MAX_DETAILS);
    status
}

/// Truncates the message after `max_message` bytes, and drops the details if they have more
/// than `max_details` bytes. Adds a note to the message for each.
pub(crate) fn bound_status(status: &mut Status, max_message: usize, max_details: usize) {
    let size = |detail: &Detail| detail.type_url.len() + detail.value.len();
    let size: usize = status.details.iter().map(size).sum();
    let dropped = size > max_details;
    let length = status.message.len();
    if length > max_message + if dropped { 0 } else { NOTES } {
        let end = status.message.floor_char_boundary(max_message);
        status.message.truncate(end);
        let note = format!(" (truncated, {length} bytes)");
        status.message.push_str(&note);
    }
    if dropped {
        status.details.clear();
        let note = format!(" (details dropped, {size} bytes)");
        status.message.push_str(&note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_was_cut_is_not_cut_again() {
        for length in [0, 100, 101, 150, 196, 197, 300, 100_000] {
            for size in [0, 9, 10, 100_000] {
                let detail = Detail {
                    type_url: "t".into(),
                    value: vec![0; size],
                };
                let mut once = Status::denied("x".repeat(length)).with_detail(detail);
                bound_status(&mut once, 100, 10);
                let mut twice = once.clone();
                bound_status(&mut twice, 100, 10);
                assert_eq!(twice, once, "{length} {size}");
            }
        }
    }
}
