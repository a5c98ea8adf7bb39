//! What a plugin and its host have said to each other; performs no I/O.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use admission_proto::frame::HOST_LIMIT;
use admission_proto::wire::plugin::{
    ListAdmissionsRequest, ListMetadataRequest, ListMetadataResponse,
};
use admission_proto::wire::stdio::{Hello, ListMetadataCall, PluginFrame, plugin_frame::Frame};
use admission_proto::wire::{Message as _, PROTOCOL_VERSION};
use admission_proto::{Admission, Code, Status};

use crate::calls::Calls;
use crate::inbox::Heard;
use crate::log::{self, Threshold};
use crate::outbox::{Kind, Outbox};
use crate::{Handler, InstanceInfo, RunError, at_hand, verdict};

/// The one conversation of this process: there is one stdin and one stdout, and both
/// the log and a component's panic hook have to find it.
static CURRENT: OnceLock<Arc<Conversation>> = OnceLock::new();

/// State shared by what reads, what writes and the handlers.
#[derive(Debug)]
pub(crate) struct Conversation {
    plugin_version: String,
    outbox: Outbox,
    calls: Calls,
    threshold: Threshold,
    frame_limit: AtomicUsize,
    /// Checks whose verdict is not written.
    owed: AtomicUsize,
}

/// One question of the host.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) admission: Admission,
    decided: AtomicBool,
}

impl Conversation {
    /// Begins the conversation of this process.
    ///
    /// # Errors
    ///
    /// [`RunError::AlreadyRan`] if it has begun before.
    pub(crate) fn begin(plugin_version: &str) -> Result<Arc<Self>, RunError> {
        let conversation = Arc::new(Self::new(plugin_version));
        CURRENT
            .set(Arc::clone(&conversation))
            .map_err(|_| RunError::AlreadyRan)?;
        log::install();
        Ok(conversation)
    }

    /// Returns the conversation of this process, if it has begun.
    pub(crate) fn current() -> Option<&'static Arc<Self>> {
        CURRENT.get()
    }

    fn new(plugin_version: &str) -> Self {
        Self {
            plugin_version: plugin_version.to_owned(),
            outbox: Outbox::default(),
            calls: Calls::new(),
            threshold: Threshold::default(),
            frame_limit: AtomicUsize::new(HOST_LIMIT),
            owed: AtomicUsize::new(0),
        }
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Returns the longest frame that the host accepts, in bytes.
    pub(crate) fn frame_limit(&self) -> usize {
        self.frame_limit.load(Ordering::Relaxed)
    }

    /// Takes note of the longest frame that the host accepts, in bytes.
    pub(crate) fn set_frame_limit(&self, limit: usize) {
        self.frame_limit.store(limit, Ordering::Relaxed);
    }

    #[cfg(all(feature = "grpc", not(target_arch = "wasm32")))]
    pub(crate) fn plugin_version(&self) -> &str {
        &self.plugin_version
    }

    pub(crate) fn threshold(&self) -> &Threshold {
        &self.threshold
    }

    /// Takes in what the host said. Returns the check that this opens, if any.
    pub(crate) fn hear(&self, heard: Heard) -> Option<Arc<Check>> {
        match heard {
            Heard::Hello(hello) => {
                self.greet(&hello);
                None
            }
            Heard::Admission(admission) => {
                self.owed.fetch_add(1, Ordering::Relaxed);
                Some(Arc::new(Check {
                    admission: Admission::from_wire(admission),
                    decided: AtomicBool::new(false),
                }))
            }
            Heard::Reply(reply) => {
                self.calls.answer(reply);
                None
            }
        }
    }

    /// Judges one check and sends the verdict.
    pub(crate) async fn judge(self: Arc<Self>, handler: Arc<impl Handler>, check: Arc<Check>) {
        let info = InstanceInfo::new(Arc::clone(&self), Arc::clone(&check));
        let mut judging = pin!(handler.handle(check.admission.clone(), info));
        let outcome = poll_fn(|cx| at_hand::with(&check, || judging.as_mut().poll(cx))).await;
        self.decide(&check, outcome);
    }

    /// Sends the verdict on a check; a second one is dropped.
    pub(crate) fn decide(&self, check: &Arc<Check>, outcome: Result<(), Status>) {
        if check.is_decided() {
            return;
        }
        self.calls.decide(check);
        let id = &check.admission.admission_id;
        let frame = verdict::frame(id, outcome, self.frame_limit());
        self.outbox.push(&frame, Kind::Verdict);
    }

    /// Asks the host for a page of metadata.
    pub(crate) async fn list_metadata(
        &self,
        check: &Arc<Check>,
        request: ListMetadataRequest,
    ) -> Result<ListMetadataResponse, Status> {
        let call = ListMetadataCall {
            call_id: u64::MAX,
            admission_id: check.admission.admission_id.clone(),
            request: Some(request),
        };
        let mut frame = PluginFrame {
            frame: Some(Frame::ListMetadata(call)),
        };
        let limit = self.frame_limit();
        if frame.encoded_len() > limit {
            return Err(Status::new(
                Code::INVALID_ARGUMENT,
                format!("the metadata call exceeds the host's limit of {limit} bytes"),
            ));
        }
        self.calls
            .call(check, |id| {
                if let Some(Frame::ListMetadata(call)) = &mut frame.frame {
                    call.call_id = id;
                }
                self.outbox.push(&frame, Kind::Other);
            })
            .await
    }

    /// Counts verdicts that have been written.
    pub(crate) fn wrote(&self, verdicts: usize) {
        self.owed.fetch_sub(verdicts, Ordering::Relaxed);
    }

    /// Returns how many checks wait for a verdict to be written.
    pub(crate) fn owed(&self) -> usize {
        self.owed.load(Ordering::Relaxed)
    }

    /// Fails the metadata calls that wait, and all to come.
    pub(crate) fn end(&self) {
        self.calls.end();
    }

    fn greet(&self, hello: &Hello) {
        if let Ok(limit @ 1..) = usize::try_from(hello.max_frame_size) {
            self.set_frame_limit(limit);
        }
        self.threshold.set(&hello.log_level);
        // A host of another version gets the same answer: it decides what to do about it.
        let answer = ListAdmissionsRequest {
            protocol_version: PROTOCOL_VERSION,
            plugin_version: self.plugin_version.clone(),
        };
        let frame = PluginFrame {
            frame: Some(Frame::ListAdmissions(answer)),
        };
        self.outbox.push(&frame, Kind::Other);
    }
}

impl Check {
    pub(crate) fn is_decided(&self) -> bool {
        self.decided.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_decided(&self) {
        self.decided.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
