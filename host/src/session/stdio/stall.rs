//! A plugin that stops in the middle of a frame: it has 5 s from the first byte of a frame to
//! the last. The inbox knows when a frame has begun and quotes it in the error.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// How long a frame may take from its first byte to its last.
const FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// Expires when the frame that has begun takes too long.
pub(super) struct StallTimer(Pin<Box<Sleep>>);

impl StallTimer {
    pub(super) fn new() -> Self {
        Self(Box::pin(tokio::time::sleep(FRAME_TIMEOUT)))
    }

    /// Returns whether the frame that began at `frame_since` has timed out. Otherwise the task
    /// is woken when it does.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        frame_since: Option<std::time::Instant>,
    ) -> bool {
        let Some(since) = frame_since else {
            return false;
        };
        let deadline = Instant::from_std(since + FRAME_TIMEOUT);
        if self.0.deadline() != deadline {
            self.0.as_mut().reset(deadline);
        }
        matches!(self.0.as_mut().poll(cx), Poll::Ready(()))
    }
}
