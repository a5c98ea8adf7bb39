//! Statuses, from the project's own to what stands in the headers of an answer.

use admission_proto::wire::{Message as _, rpc};
use admission_proto::{Code, Status};

use crate::session::bound;

/// Longest message of a status that is sent, in bytes. With the details it must fit into
/// the 16 KiB of headers that many peers accept, three bytes for one where it is escaped.
const MAX_MESSAGE: usize = 2 << 10;

/// Most bytes of details that are sent.
const MAX_DETAILS: usize = 4 << 10;

/// Spells the status that a call ends with.
pub(super) fn to_wire(mut status: Status) -> tonic::Status {
    bound(&mut status, MAX_MESSAGE, MAX_DETAILS);
    if status.code == Code::OK {
        // It is an error all the same, and must not look like a page without entries.
        status.code = Code::UNKNOWN;
    }
    let code = tonic::Code::from_i32(status.code.number());
    let message = status.message.clone();
    if status.details.is_empty() {
        return tonic::Status::new(code, message);
    }
    let details = rpc::Status::from(status).encode_to_vec();
    tonic::Status::with_details(code, message, details.into())
}
