//! One conversation with a running plugin: what it says, and what it is told.

mod bound;
pub(crate) mod grpc;
mod listing;
pub(crate) mod stdio;

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use admission_proto::Status;
use admission_proto::wire::PROTOCOL_VERSION;
use admission_proto::wire::plugin::Admission;

pub(crate) use self::bound::bound;
use crate::error_kind::ErrorKind;
use crate::log::LogLevel;
use crate::repository::{ListMetadata, MetadataPage};
use crate::transport::{Exit, Remains};

/// How long the end of what a plugin says and its exit wait for each other, whichever
/// is seen first.
pub(crate) const PARTING: Duration = Duration::from_millis(50);

/// A conversation with a plugin that was started. Dropping it kills the plugin.
pub(crate) trait Session: Replies + Send {
    /// Moves what can be moved both ways, and lets the plugin run. Ready if anything
    /// moved, with what was heard in `events`; else the task is woken when something can.
    fn poll(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> Poll<()>;

    /// Returns how many undecided checks may be out at the plugin before it makes sense
    /// to hand in another, where a wire without a limit of its own has this `window`.
    fn most_out(&self, window: usize) -> usize;

    /// Asks for a verdict.
    fn admit(&mut self, admission: Admission);

    /// Asks the plugin to finish. What it had not been sent yet it does not get.
    fn finish(&mut self);

    /// Kills the plugin.
    fn kill(&mut self);

    /// Stops listening to what the plugin says, for which it is not held up.
    fn ignore_output(&mut self);

    /// Tells whether the plugin does nothing more, and its exit is sure to follow.
    fn is_exiting(&self) -> bool;

    /// Waits, once the plugin has exited, until nothing of it is left.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Remains>;
}

/// The answers to a plugin's calls for metadata.
pub(crate) trait Replies {
    /// Answers a call, unless the plugin is ending or does not wait any more.
    fn reply(&mut self, call_id: u64, page: Result<MetadataPage, Status>);

    /// Returns how many bytes of answers wait to be written.
    fn unwritten_replies(&self) -> usize;
}

/// Takes what must have had its effect when the plugin is told that it was heard. A
/// session whose wire answers calls hands it in from the task that has heard it.
pub(crate) trait Hearer: Send + Sync {
    /// Takes a line of the plugin's log.
    fn logged(&self, level: LogLevel, message: &str);

    /// Takes a verdict. Returns whether it has settled a check.
    fn resolved(&self, admission_id: &str, status: Status) -> bool;
}

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
    /// It has settled checks, of which the [`Hearer`] was told.
    Settled {
        /// When it settled the last of them.
        at: Instant,
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
    /// It does not wait for the answer to a call any more.
    CallCancelled {
        /// Names the call.
        call_id: u64,
    },
    /// It said something that a newer protocol may define.
    Unknown,
    /// It will say no more, and may live on. Comes once at most.
    OutputEnded {
        /// What that means for checks if it does not exit, either.
        text: &'static str,
    },
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
    /// What it calls the check that it makes the call for, on a wire where it says that.
    pub(crate) admission_id: Option<String>,
    /// The service that is asked.
    pub(crate) service_url: String,
    /// What is asked, or why that makes no sense.
    pub(crate) request: Result<ListMetadata, Status>,
}

/// How a plugin broke the protocol.
#[derive(Debug)]
pub(crate) struct Violation {
    /// `Protocol`, or `Stall` for a frame that did not go on.
    pub(crate) kind: ErrorKind,
    /// What was seen, and what to do about it.
    pub(crate) text: String,
}

/// Says that a plugin speaks another version of the protocol.
pub(crate) fn version_mismatch(version: i32) -> String {
    format!("unknown protocol version {version}: expecting {PROTOCOL_VERSION}")
}

impl Violation {
    /// Describes something that must not be said, or not then.
    pub(crate) fn protocol(what: &str) -> Self {
        Self {
            kind: ErrorKind::Protocol,
            text: format!("the admission plugin broke the protocol: {what}"),
        }
    }
}
