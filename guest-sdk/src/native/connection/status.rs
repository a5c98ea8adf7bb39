//! From tonic's status to the project's own.

use std::error::Error as _;

use admission_proto::wire::{Message as _, rpc};
use admission_proto::{Code, Status};

/// Why a call failed.
#[derive(Debug)]
pub(in crate::native) enum Failure {
    /// The host said so.
    Host(Status),
    /// The host cannot be heard any more, for this reason.
    Lost(String),
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        // What the host sends has no cause on this side.
        if let Some(source) = status.source() {
            return Self::Lost(source.to_string());
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
            Failure::Host(status) => status,
            Failure::Lost(why) => Status::new(
                Code::UNAVAILABLE,
                format!("the connection to the host is lost: {why}"),
            ),
        }
    }
}
