//! Calls for metadata and their answers, from the wire's messages and to them.

use admission_proto::wire::plugin::{ListMetadataRequest, ListMetadataResponse};
use admission_proto::wire::{Message, cipd};
use admission_proto::{Code, ObjectRef, Status, frame};

use super::bound;
use crate::repository::{ListMetadata, MetadataPage};

/// Longest message of a refusal, in bytes. With the details it must fit into the 16 KiB of
/// headers that many gRPC peers accept, three bytes for one where it is escaped.
const MAX_MESSAGE: usize = 2 << 10;

/// Most bytes of details of a refusal.
const MAX_DETAILS: usize = 4 << 10;

/// Reads what is asked.
///
/// # Errors
///
/// INVALID_ARGUMENT if the request names no instance.
pub(super) fn asked(request: ListMetadataRequest) -> Result<ListMetadata, Status> {
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

/// Spells a page.
pub(super) fn response(page: MetadataPage) -> ListMetadataResponse {
    ListMetadataResponse {
        metadata: page
            .metadata
            .into_iter()
            .map(cipd::InstanceMetadata::from)
            .collect(),
        next_page_token: page.next_page_token,
    }
}

/// Makes of the error that a call ends with what each wire can say, so that a policy is
/// told the same over all of them.
pub(super) fn refusal(mut status: Status) -> Status {
    // gRPC has no others. OK is an error all the same, and must not look like a page.
    if !(1..=16).contains(&status.code.number()) {
        status.code = Code::UNKNOWN;
    }
    bound(&mut status, MAX_MESSAGE, MAX_DETAILS);
    status
}

/// Returns how many bytes a message takes.
///
/// # Errors
///
/// RESOURCE_EXHAUSTED if no plugin has to accept that many.
pub(super) fn fitting(message: &impl Message) -> Result<usize, Status> {
    let length = message.encoded_len();
    if length <= frame::PLUGIN_LIMIT {
        return Ok(length);
    }
    let limit = frame::PLUGIN_LIMIT;
    let text =
        format!("a page of metadata takes a frame of {length} bytes, over the limit of {limit}");
    Err(Status::new(Code::RESOURCE_EXHAUSTED, text))
}
