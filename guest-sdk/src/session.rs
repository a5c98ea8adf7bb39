//! The state that the run loop and the handlers share; performs no I/O.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use admission_proto::frame::HOST_LIMIT;
use admission_proto::wire::plugin::{
    self, ListAdmissionsRequest, ListMetadataRequest, ListMetadataResponse,
};
use admission_proto::wire::stdio::{
    Hello, ListMetadataCall, ListMetadataReply, list_metadata_reply::Result as Reply,
};
use admission_proto::wire::{Message as _, PROTOCOL_VERSION};
use admission_proto::{Admission, Code, LogLevel, Status};

use crate::check::Check;
use crate::inbound::Inbound;
use crate::metadata_calls::MetadataCalls;
use crate::outbox::{ENVELOPE, Outbound, Outbox};
use crate::{RunError, verdict};

/// The session of this process. There is only one, because there is one stdin and one stdout.
/// It is global so that log events and a component's panic hook can find it.
static CURRENT: OnceLock<Arc<Session>> = OnceLock::new();

#[derive(Debug)]
pub(crate) struct Session {
    plugin_version: String,
    pub(crate) outbox: Outbox,
    pub(crate) metadata_calls: MetadataCalls,
    /// The least severe [`LogLevel`] that the host asks for.
    log_level: AtomicU8,
    frame_limit: AtomicUsize,
    /// Number of checks whose verdict is not written.
    pending: AtomicUsize,
}

impl Session {
    /// Starts the session of this process.
    ///
    /// # Errors
    ///
    /// [`RunError::AlreadyRan`] the second time.
    pub(crate) fn start(plugin_version: &str) -> Result<Arc<Self>, RunError> {
        let session = Arc::new(Self::new(plugin_version));
        CURRENT
            .set(Arc::clone(&session))
            .map_err(|_| RunError::AlreadyRan)?;
        Ok(session)
    }

    /// Returns the session of this process, if it has started.
    pub(crate) fn current() -> Option<&'static Arc<Self>> {
        CURRENT.get()
    }

    fn new(plugin_version: &str) -> Self {
        Self {
            plugin_version: plugin_version.to_owned(),
            outbox: Outbox::default(),
            metadata_calls: MetadataCalls::new(),
            log_level: AtomicU8::new(LogLevel::default() as u8),
            frame_limit: AtomicUsize::new(HOST_LIMIT),
            pending: AtomicUsize::new(0),
        }
    }

    /// Returns the least severe level that the host asks for. The default is info.
    pub(crate) fn log_level(&self) -> LogLevel {
        const LEVELS: [LogLevel; 4] = [
            LogLevel::Debug,
            LogLevel::Info,
            LogLevel::Warning,
            LogLevel::Error,
        ];
        LEVELS[usize::from(self.log_level.load(Ordering::Relaxed))]
    }

    /// Returns the longest frame that the host accepts, in bytes.
    pub(crate) fn frame_limit(&self) -> usize {
        self.frame_limit.load(Ordering::Relaxed)
    }

    pub(crate) fn set_frame_limit(&self, limit: usize) {
        self.frame_limit.store(limit, Ordering::Relaxed);
    }

    /// Returns the request with which the plugin asks for admissions.
    pub(crate) fn connect_request(&self) -> ListAdmissionsRequest {
        ListAdmissionsRequest {
            protocol_version: PROTOCOL_VERSION,
            plugin_version: self.plugin_version.clone(),
        }
    }

    /// Handles a frame of the host. Returns the check that it opens, if any.
    pub(crate) fn receive(&self, inbound: Inbound) -> Option<Arc<Check>> {
        match inbound {
            Inbound::Hello(hello) => {
                self.handle_hello(&hello);
                None
            }
            Inbound::Admission(admission) => Some(self.open_check(admission)),
            Inbound::MetadataReply(reply) => {
                self.handle_reply(reply);
                None
            }
        }
    }

    pub(crate) fn open_check(&self, admission: plugin::Admission) -> Arc<Check> {
        self.pending.fetch_add(1, Ordering::Relaxed);
        Arc::new(Check::new(Admission::from_wire(admission)))
    }

    /// Sends the verdict on a check. A second verdict is dropped.
    pub(crate) fn settle(&self, check: &Arc<Check>, outcome: Result<(), Status>) {
        if self.metadata_calls.settle(check) {
            let id = &check.admission.admission_id;
            let verdict = verdict::message(id, outcome, self.frame_limit());
            self.outbox.push(Outbound::Verdict(verdict));
        }
    }

    /// Asks the host for a page of metadata.
    pub(crate) async fn list_metadata(
        &self,
        check: &Arc<Check>,
        request: ListMetadataRequest,
    ) -> Result<ListMetadataResponse, Status> {
        let call = ListMetadataCall {
            // The ID with the longest encoding, to check the length before the ID is known.
            call_id: u64::MAX,
            admission_id: check.admission.admission_id.clone(),
            request: Some(request),
        };
        let limit = self.frame_limit();
        if call.encoded_len() + ENVELOPE > limit {
            return Err(Status::new(
                Code::INVALID_ARGUMENT,
                format!("the metadata call exceeds the host's limit of {limit} bytes"),
            ));
        }
        self.metadata_calls
            .call(check, |call_id| {
                let call = ListMetadataCall { call_id, ..call };
                self.outbox.push(Outbound::MetadataCall(Box::new(call)));
            })
            .await
    }

    /// Counts verdicts as written.
    pub(crate) fn verdicts_written(&self, count: usize) {
        self.pending.fetch_sub(count, Ordering::Relaxed);
    }

    /// Returns the number of checks whose verdict is not written.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Cancels all metadata calls in flight, and makes later calls fail.
    pub(crate) fn end(&self) {
        self.metadata_calls.cancel_all();
    }

    fn handle_hello(&self, hello: &Hello) {
        if let Ok(limit @ 1..) = usize::try_from(hello.max_frame_size) {
            self.set_frame_limit(limit);
        }
        let level = LogLevel::from_wire(&hello.log_level);
        self.log_level.store(level as u8, Ordering::Relaxed);
        // Call sites of `tracing` cache whether they are enabled.
        tracing::callsite::rebuild_interest_cache();
        // A host of another protocol version gets the same reply, and may refuse it.
        self.outbox.push(Outbound::Connect(self.connect_request()));
    }

    fn handle_reply(&self, reply: ListMetadataReply) {
        let result = match reply.result {
            Some(Reply::Page(page)) => Ok(page),
            Some(Reply::Status(status)) if status.code != 0 => Err(status.into()),
            _ => Err(Status::new(
                Code::INTERNAL,
                "the host answered a metadata call with neither a page nor an error",
            )),
        };
        self.metadata_calls.complete(reply.call_id, result);
    }
}

#[cfg(test)]
mod tests;
