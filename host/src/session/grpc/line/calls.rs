//! Calls for metadata that wait for their answers.

use admission_proto::{Code, Status};
use tokio::sync::oneshot;

use super::{Answer, Line, Stage, finishing};
use crate::session::{Event, MetadataCall};

/// Bytes of calls for metadata that the session has not seen yet.
const MAX_UNSEEN: usize = 8 << 20;

/// A call for metadata that waits. Dropping it cancels the call.
pub(in crate::session::grpc) struct Call<'a> {
    line: &'a Line,
    id: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Line {
    /// Hands a call of `size` bytes to the session.
    ///
    /// # Errors
    ///
    /// If the plugin is to finish, or too much waits for the session.
    pub(in crate::session::grpc) fn call(
        &self,
        mut call: MetadataCall,
        size: usize,
    ) -> Result<Call<'_>, Status> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.lock();
        if state.stage == Stage::Finishing || state.deaf {
            return Err(finishing());
        }
        if state.unseen + size > MAX_UNSEEN {
            let text = "too many metadata calls at once";
            return Err(Status::new(Code::RESOURCE_EXHAUSTED, text));
        }
        let id = state.next_call;
        call.call_id = id;
        state.next_call += 1;
        state.unseen += size;
        state.calls.insert(id, sender);
        state.events.push(Event::MetadataCall(call));
        drop(state);
        self.session.wake();
        Ok(Call {
            line: self,
            id,
            answer,
        })
    }
}

impl Call<'_> {
    /// Waits for the answer; CANCELLED if the plugin is to finish.
    pub(in crate::session::grpc) async fn answer(mut self) -> Answer {
        (&mut self.answer)
            .await
            .unwrap_or_else(|_| Err(finishing()))
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.line.lock();
        let unanswered = state.calls.remove(&self.id);
        if unanswered.is_some() {
            state.events.push(Event::CallCancelled { call_id: self.id });
            drop(state);
            self.line.session.wake();
        }
    }
}
