//! gRPC statuses.

use std::fmt;

use crate::wire;

/// A gRPC status code. A number that gRPC does not define is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(i32);

/// gRPC's names, in the order of their numbers.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

#[expect(missing_docs, reason = "gRPC defines their meaning")]
impl Code {
    pub const OK: Self = Self(0);
    pub const CANCELLED: Self = Self(1);
    pub const UNKNOWN: Self = Self(2);
    pub const INVALID_ARGUMENT: Self = Self(3);
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    pub const NOT_FOUND: Self = Self(5);
    pub const ALREADY_EXISTS: Self = Self(6);
    pub const PERMISSION_DENIED: Self = Self(7);
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    pub const FAILED_PRECONDITION: Self = Self(9);
    pub const ABORTED: Self = Self(10);
    pub const OUT_OF_RANGE: Self = Self(11);
    pub const UNIMPLEMENTED: Self = Self(12);
    pub const INTERNAL: Self = Self(13);
    pub const UNAVAILABLE: Self = Self(14);
    pub const DATA_LOSS: Self = Self(15);
    pub const UNAUTHENTICATED: Self = Self(16);
}

impl Code {
    /// Returns the number on the wire.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl From<i32> for Code {
    fn from(number: i32) -> Self {
        Self(number)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = usize::try_from(self.0).ok().and_then(|i| NAMES.get(i));
        match name {
            Some(name) => f.write_str(name),
            None => write!(f, "CODE({})", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A gRPC status: a code, a message for a person, and details for programs.
///
/// A policy returns [`Status::denied`] to deny; any other error code means that the check
/// failed.
///
/// ```
/// use admission_proto::{Code, Status};
///
/// let status = Status::denied("it is not signed");
/// assert_eq!(status.code, Code::FAILED_PRECONDITION);
/// assert_eq!(status.to_string(), "it is not signed");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The reason, for a person.
    pub message: String,
    /// Typed messages for programs. The host passes them on unchanged.
    pub details: Vec<Detail>,
}

/// A typed message in a [`Status`]: a `google.protobuf.Any`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "google.protobuf.Any will not change"
)]
pub struct Detail {
    /// Names the type of the message.
    pub type_url: String,
    /// The message, encoded as protobuf.
    pub value: Vec<u8>,
}

impl Status {
    /// Creates a status without details.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// Creates the status of a denial: `FAILED_PRECONDITION`.
    #[must_use]
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(Code::FAILED_PRECONDITION, message)
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: Detail) -> Self {
        self.details.push(detail);
        self
    }
}

impl From<wire::rpc::Status> for Status {
    fn from(status: wire::rpc::Status) -> Self {
        let details = status.details.into_iter().map(|any| Detail {
            type_url: any.type_url,
            value: any.value,
        });
        Self {
            code: Code(status.code),
            message: status.message,
            details: details.collect(),
        }
    }
}

impl From<Status> for wire::rpc::Status {
    fn from(status: Status) -> Self {
        let details = status.details.into_iter().map(|detail| wire::Any {
            type_url: detail.type_url,
            value: detail.value,
        });
        Self {
            code: status.code.0,
            message: status.message,
            details: details.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_grpc_does_not_define_is_kept() {
        let received = wire::rpc::Status {
            code: 12345,
            message: "odd".into(),
            details: vec![wire::Any {
                type_url: "t".into(),
                value: vec![1],
            }],
        };
        let status = Status::from(received.clone());
        assert_eq!(status.code.number(), 12345);
        assert_eq!(status.code.to_string(), "CODE(12345)");
        assert_eq!(wire::rpc::Status::from(status), received);
    }

    #[test]
    fn codes_have_the_names_of_grpc() {
        assert_eq!(Code::FAILED_PRECONDITION.to_string(), "FAILED_PRECONDITION");
        assert_eq!(Code::UNAUTHENTICATED.to_string(), "UNAUTHENTICATED");
        assert_eq!(Code::from(-1).to_string(), "CODE(-1)");
    }
}
