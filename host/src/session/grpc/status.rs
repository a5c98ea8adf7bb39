//! Statuses, from the project's own to what stands in the headers of an answer.

use admission_proto::Status;
use admission_proto::wire::{Message as _, rpc};

/// Spells the status that a call ends with: one that
/// [`listing::answer`](crate::session::listing::answer) gives, or a short one of this host.
pub(super) fn to_wire(status: Status) -> tonic::Status {
    let code = tonic::Code::from_i32(status.code.number());
    let message = status.message.clone();
    if status.details.is_empty() {
        return tonic::Status::new(code, message);
    }
    let details = rpc::Status::from(status).encode_to_vec();
    tonic::Status::with_details(code, message, details.into())
}
