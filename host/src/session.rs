//! One conversation with a running plugin: what it says, and what it is told.

pub(crate) mod stdio;

use admission_proto::Status;

use crate::class::Class;
use crate::log::LogLevel;
use crate::repository::ListMetadata;
use crate::transport::Exit;

/// What was heard from a plugin.
#[derive(Debug)]
pub(crate) enum Event {
    /// It is there and wants admissions. Comes once, before verdicts and calls.
    Connected {
        /// The protocol it speaks.
        protocol_version: i32,
        /// Free text, for logs.
        plugin_version: String,
    },
    /// It has judged a check.
    Resolved {
        /// What it calls the check; perhaps nothing that we know.
        admission_id: String,
        /// The verdict.
        status: Status,
    },
    /// It has logged a line.
    Log {
        /// How severe.
        level: LogLevel,
        /// The line.
        message: String,
    },
    /// It wants metadata.
    MetadataCall(MetadataCall),
    /// It said something that a newer protocol may define.
    Unknown,
    /// It closed its output and may live on. Comes once at most.
    OutputEnded,
    /// It broke the protocol; nothing it said later is heard.
    Violation(Violation),
    /// It has ended; what it had said before was heard. Comes last.
    Exited {
        /// How.
        exit: Exit,
        /// The frame in the middle of which its output ended, quoted.
        torn: Option<String>,
    },
}

/// A call for metadata; answered exactly once.
#[derive(Debug)]
pub(crate) struct MetadataCall {
    /// Names the call in the answer.
    pub(crate) call_id: u64,
    /// What it calls the check that it makes the call for.
    pub(crate) admission_id: String,
    /// The service that is asked.
    pub(crate) service_url: String,
    /// What is asked, or why that makes no sense.
    pub(crate) request: Result<ListMetadata, Status>,
}

/// How a plugin broke the protocol.
#[derive(Debug)]
pub(crate) struct Violation {
    /// `Protocol`, or `Stall` for a frame that did not go on.
    pub(crate) class: Class,
    /// What was seen, and what to do about it.
    pub(crate) text: String,
}

impl Violation {
    /// Describes something that must not be said, or not then.
    pub(crate) fn protocol(what: &str) -> Self {
        Self {
            class: Class::Protocol,
            text: format!("the admission plugin broke the protocol: {what}"),
        }
    }
}
