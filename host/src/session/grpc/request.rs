//! The body of a request: one message, whose length is checked before memory is allocated
//! for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::codegen::StdError;

/// Longest message that is accepted, in bytes: the reference's limit.
const MAX_MESSAGE: u32 = 4 << 20;

/// Bytes before a message: a compression flag, and the length in four bytes.
const PREFIX: usize = 5;

/// The body of a request, read on behalf of an authenticated plugin.
pub(super) struct RequestBody {
    body: Incoming,
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that were read.
    prefix_read: usize,
    /// Bytes of the message that are still to be read.
    missing: usize,
    /// Memory budget of the plugin's requests, in bytes.
    memory: Arc<Semaphore>,
    /// The share of this message. Held as long as tonic may buffer the message.
    reserved: Option<OwnedSemaphorePermit>,
}

impl RequestBody {
    /// Reads `body`. The message counts against `memory`, in bytes, until it is decoded.
    pub(super) fn new(body: Incoming, memory: Arc<Semaphore>) -> Self {
        Self {
            body,
            prefix: [0; PREFIX],
            prefix_read: 0,
            missing: 0,
            memory,
            reserved: None,
        }
    }

    fn check(&mut self, bytes: &[u8]) -> Result<(), Status> {
        let (prefix, message) = bytes.split_at(bytes.len().min(PREFIX - self.prefix_read));
        if !prefix.is_empty() {
            self.prefix[self.prefix_read..][..prefix.len()].copy_from_slice(prefix);
            self.prefix_read += prefix.len();
            if self.prefix_read < PREFIX {
                return Ok(());
            }
            self.reserve()?;
        }
        // tonic would read a second message of any length.
        self.missing = self
            .missing
            .checked_sub(message.len())
            .ok_or_else(|| Status::internal("the call has more than one message"))?;
        Ok(())
    }

    /// Reserves memory for the message, whose length is in the complete prefix.
    fn reserve(&mut self) -> Result<(), Status> {
        let [_, length @ ..] = self.prefix;
        let length = u32::from_be_bytes(length);
        if length > MAX_MESSAGE {
            return Err(Status::resource_exhausted(format!(
                "grpc: received message larger than max ({length} vs. {MAX_MESSAGE})"
            )));
        }
        let reserved = Arc::clone(&self.memory).try_acquire_many_owned(length);
        self.reserved =
            Some(reserved.map_err(|_| {
                Status::resource_exhausted("concurrent calls take too much memory")
            })?);
        self.missing = length as usize;
        Ok(())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else {
            return Poll::Ready(None);
        };
        if let Some(bytes) = frame.data_ref() {
            self.check(bytes)?;
        }
        Poll::Ready(Some(Ok(frame)))
    }
}
