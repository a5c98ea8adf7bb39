//! From tonic's status to the project's own.

use std::error::Error as _;

use admission_proto::wire::{Message as _, rpc};
use admission_proto::{Code, Status};

/// Why a call failed.
#[derive(Debug)]
pub(in crate::native) enum Failure {
    /// The host said so.
    Host(Status),
    /// The host cannot be heard any more.
    Lost(Status),
}

impl Failure {
    /// Returns the status of what happens on a connection that has ended.
    pub(in crate::native) fn closed() -> Status {
        Status::new(Code::UNAVAILABLE, "the connection to the host is lost")
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        // What the host sends has no cause on this side.
        if let Some(source) = status.source() {
            let mut lost = Self::closed();
            lost.message += &format!(": {source}");
            return Self::Lost(lost);
        }
        let mut failure = Status::new((status.code() as i32).into(), status.message());
        // A host with details to tell sends the whole status in them once more.
        if let Ok(whole) = rpc::Status::decode(status.details()) {
            failure.details = Status::from(whole).details;
        }
        Self::Host(failure)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Host(status) | Failure::Lost(status) => status,
        }
    }
}
