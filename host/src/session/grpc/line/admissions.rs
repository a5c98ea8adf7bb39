//! What is to be judged, on its way to the plugin.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use admission_proto::wire::plugin::Admission;
use futures_util::Stream;

use super::{Line, QUEUE, Stage, terminating};
use crate::session::Event;

/// What the end of the stream means for checks, if the plugin lives on: the words of the
/// reference, which are those of a close.
const STREAM_ENDED: &str = "the admission plugin is terminating";

/// The stream of admissions. Dropping it ends what the plugin gets.
pub(in crate::session::grpc) struct Admissions(pub(super) Arc<Line>);

impl Stream for Admissions {
    type Item = Result<Admission, tonic::Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let line = &self.0;
        let mut state = line.lock();
        if state.stage == Stage::Finishing {
            return Poll::Ready(Some(Err(terminating())));
        }
        let Some(admission) = state.queue.pop_front() else {
            state.stream = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let has_room = state.full && state.queue.len() <= QUEUE / 2;
        if has_room {
            state.full = false;
            drop(state);
            line.session.wake();
        }
        Poll::Ready(Some(Ok(admission)))
    }
}

impl Drop for Admissions {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.stream = None;
        if state.stage == Stage::Streaming {
            state.stage = Stage::Streamed;
            state.queue = VecDeque::new();
            state.events.push(Event::OutputEnded { text: STREAM_ENDED });
            drop(state);
            self.0.session.wake();
        }
    }
}
