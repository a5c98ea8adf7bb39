//! Calls for metadata and their answers, from the wire's messages and to them.

use admission_proto::wire::plugin::{ListMetadataRequest, ListMetadataResponse};
use admission_proto::wire::{Message, cipd};
use admission_proto::{Code, ObjectRef, Status, frame};

use super::bound;
use crate::repository::{ListMetadata, MetadataPage};

/// Longest page that every plugin has to accept, in bytes, with room for what a frame has
/// around it.
const MAX_PAGE: usize = frame::PLUGIN_LIMIT - 32;

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

/// Makes of what a call came to what each wire can say, so that a policy is told the same
/// over all of them: a page and how many bytes it takes, or why there is none.
pub(super) fn answer(
    page: Result<MetadataPage, Status>,
) -> Result<(ListMetadataResponse, usize), Status> {
    let page = page.map_err(refusal)?;
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

fn refusal(mut status: Status) -> Status {
    // gRPC has no others. OK is an error all the same, and must not look like a page.
    if !(1..=16).contains(&status.code.number()) {
        status.code = Code::UNKNOWN;
    }
    bound(&mut status, MAX_MESSAGE, MAX_DETAILS);
    status
}
