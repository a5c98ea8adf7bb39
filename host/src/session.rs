//! The host's side of the exchange with one connected plugin.

#[cfg(feature = "grpc")]
pub(crate) mod grpc;
mod listing;
pub(crate) mod stdio;

use std::task::{Context, Poll};
use std::time::Duration;

use admission_proto::wire::PROTOCOL_VERSION;
use admission_proto::wire::plugin::Admission;
use admission_proto::{LogLevel, Status};

pub(crate) use self::listing::bound_status;
use crate::error_kind::ErrorKind;
use crate::repository::{ListMetadata, MetadataPage};

/// How long the end of a plugin's output and its exit wait for each other, whichever is
/// seen first.
pub(crate) const PARTING: Duration = Duration::from_millis(50);

/// The streams of one plugin and the protocol on them.
///
/// In each round the caller polls `poll_write`, the running plugin, and `poll_read`, in
/// this order. None of them waits for another: a write that is awaited would deadlock as
/// soon as both pipes are full.
pub(crate) trait Session: Send {
    /// Writes what the plugin accepts. Returns whether anything changed; otherwise the
    /// task is woken when more can be written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool;

    /// Reads a portion of what the plugin sent and appends to `events`. Returns whether
    /// anything was read; otherwise the task is woken when there is more.
    fn poll_read(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> bool;

    /// Waits, after `process_exited`, until all that the plugin sent before its exit has
    /// arrived. What it sent last may still be returned by the next `poll_read`.
    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Returns how many checks may be in flight before another should be sent, where a
    /// wire without flow control of its own allows `max_in_flight`.
    fn capacity(&self, max_in_flight: usize) -> usize;

    /// Sends an admission.
    fn send_admission(&mut self, admission: Admission);

    /// Answers a metadata call, unless the plugin is closing or cancelled the call.
    fn reply(&mut self, call_id: u64, page: Result<MetadataPage, Status>);

    /// Returns how many bytes of replies wait to be written.
    fn unwritten_replies(&self) -> usize;

    /// Asks the plugin to finish: completes a half-written frame, drops all others and
    /// ends stdin.
    fn finish(&mut self);

    /// Tells the session that the process has exited.
    fn process_exited(&mut self);

    /// Quotes the frame that the plugin has sent only in part.
    fn unfinished_frame(&self) -> Option<String> {
        None
    }
}

/// Receives what takes effect at once, on the task that received it: over gRPC before the
/// plugin's RPC is answered.
pub(crate) trait SessionEvents: Send + Sync {
    /// Settles a check.
    fn settle(&self, admission_id: &str, status: Status);

    /// Logs a line of the plugin.
    fn log(&self, level: LogLevel, message: &str);

    /// Counts a frame that only a newer protocol defines.
    fn count_unknown_frame(&self);
}

/// What a plugin sent, for the supervisor to act on.
#[derive(Debug)]
pub(crate) enum Event {
    /// The plugin asks for admissions. Comes once, before verdicts and metadata calls.
    Connected {
        /// The protocol that it speaks.
        protocol_version: i32,
        /// Free text, for logs.
        plugin_version: String,
    },
    /// The plugin asks for metadata.
    MetadataCall(MetadataCall),
    /// The plugin cancelled a metadata call.
    #[cfg(feature = "grpc")]
    CallCancelled {
        /// Names the call.
        call_id: u64,
    },
    /// The plugin ended its output and may still run. Comes at most once.
    OutputEnded {
        /// The error of the checks if the plugin does not exit.
        text: &'static str,
    },
    /// The session failed. What the plugin sends later is discarded.
    Failed(SessionError),
}

/// A call for metadata; answered exactly once.
#[derive(Debug)]
pub(crate) struct MetadataCall {
    /// Names the call in the reply.
    pub(crate) call_id: u64,
    /// The plugin's name for the check that it makes the call for. `None` on a wire that
    /// does not carry it.
    pub(crate) admission_id: Option<String>,
    /// The service that is asked.
    pub(crate) service_url: String,
    /// The request, or why it is invalid.
    pub(crate) request: Result<ListMetadata, Status>,
}

/// Why a session cannot go on.
#[derive(Debug)]
pub(crate) struct SessionError {
    /// Becomes the kind of the plugin's error.
    pub(crate) kind: ErrorKind,
    /// What was seen, and what to do about it.
    pub(crate) text: String,
}

impl SessionError {
    /// Creates the error of a plugin that broke the protocol by `what`.
    pub(crate) fn protocol(what: &str) -> Self {
        Self {
            kind: ErrorKind::Protocol,
            text: format!("the admission plugin broke the protocol: {what}"),
        }
    }

    /// Creates the error of a plugin that speaks another version of the protocol.
    pub(crate) fn version(version: i32) -> Self {
        Self {
            kind: ErrorKind::Version,
            text: format!("unknown protocol version {version}: expecting {PROTOCOL_VERSION}"),
        }
    }
}
