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

/// Timeout between the end of a plugin's output and its exit, in either order.
pub(crate) const EXIT_GAP: Duration = Duration::from_millis(50);

/// The streams of one plugin and the protocol on them.
///
/// In each round the caller polls `poll_write`, the running plugin, and `poll_read`, in
/// this order. None of them waits for another: awaiting a write would deadlock as soon as
/// both pipes are full.
pub(crate) trait Session: Send {
    /// Writes what the plugin accepts. Returns whether anything changed; otherwise the
    /// task is woken when more can be written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool;

    /// Reads a portion of what the plugin sent and appends to `events`. Returns whether
    /// anything was read; otherwise the task is woken when there is more.
    fn poll_read(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> bool;

    /// Waits, after `process_exited`, until everything that the plugin sent before its exit
    /// has arrived. The next `poll_read` may still return the last part of it.
    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Returns how many checks may be in flight now. On a wire without flow control of its own
    /// that is `max_in_flight`, if there is room for another frame.
    fn capacity(&self, max_in_flight: usize) -> usize;

    /// Sends an admission.
    fn send_admission(&mut self, admission: Admission);

    /// Replies to a metadata call, unless the plugin is closing or cancelled the call.
    fn reply(&mut self, call_id: u64, page: Result<MetadataPage, Status>);

    /// Returns how many bytes of replies wait to be written.
    fn unwritten_replies(&self) -> usize;

    /// Asks the plugin to shut down: completes a partly written frame, drops all others and
    /// closes stdin.
    fn finish(&mut self);

    /// Handles the exit of the process.
    fn process_exited(&mut self);

    /// Quotes the incomplete frame at the end of the plugin's output, if there is one.
    fn unfinished_frame(&self) -> Option<String> {
        None
    }
}

/// Handles verdicts and log lines at once, on the task that received them. Over gRPC that is
/// before the reply to the plugin's RPC.
pub(crate) trait SessionEvents: Send + Sync {
    /// Settles a check.
    fn settle(&self, admission_id: &str, status: Status);

    /// Logs a line of the plugin.
    fn log(&self, level: LogLevel, message: &str);

    /// Counts a frame that only a newer protocol defines.
    fn count_unknown_frame(&self);
}

/// An event of a session, which the supervisor handles.
#[derive(Debug)]
pub(crate) enum Event {
    /// The plugin requested admissions. Comes once, before verdicts and metadata calls.
    Connected {
        /// Its version of the protocol.
        protocol_version: i32,
        /// Free text, for logs.
        plugin_version: String,
    },
    /// The plugin requested metadata.
    MetadataCall(MetadataCall),
    /// The plugin cancelled a metadata call.
    #[cfg(feature = "grpc")]
    CallCancelled {
        /// Names the call.
        call_id: u64,
    },
    /// The plugin closed its output and may still run. Comes at most once.
    OutputEnded {
        /// The text of the error if the plugin does not exit.
        text: &'static str,
    },
    /// The session failed. Later input from the plugin is discarded.
    Failed(SessionError),
}

/// A call for metadata. It gets exactly one reply.
#[derive(Debug)]
pub(crate) struct MetadataCall {
    /// Names the call in the reply.
    pub(crate) call_id: u64,
    /// The ID of the check that the call is for. `None` over gRPC, which does not carry it.
    pub(crate) admission_id: Option<String>,
    /// URL of the service in the request.
    pub(crate) service_url: String,
    /// The request, or why it is invalid.
    pub(crate) request: Result<ListMetadata, Status>,
}

/// Why a session failed.
#[derive(Debug)]
pub(crate) struct SessionError {
    /// Becomes the kind of the plugin's error.
    pub(crate) kind: ErrorKind,
    /// What happened, and what to do about it.
    pub(crate) text: String,
}

impl SessionError {
    /// Creates the error of a plugin that broke the protocol. `what` describes the violation.
    pub(crate) fn protocol(what: &str) -> Self {
        Self {
            kind: ErrorKind::Protocol,
            text: format!("the admission plugin broke the protocol: {what}"),
        }
    }

    /// Creates the error of a plugin with another version of the protocol.
    pub(crate) fn version(version: i32) -> Self {
        Self {
            kind: ErrorKind::Version,
            text: format!("unknown protocol version {version}: expecting {PROTOCOL_VERSION}"),
        }
    }
}
