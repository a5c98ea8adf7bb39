//! What is read of a call: looked at before anything is allocated for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tonic::Status;
use tonic::codegen::StdError;

use super::line::Claim;
use super::services::Desk;

/// Longest message that is accepted, in bytes: the reference's limit.
const MAX_MESSAGE: usize = 4 << 20;

/// What precedes a message: whether it is compressed, and its length in four bytes.
const PREFIX: usize = 5;

/// The body of a request, which holds one message.
pub(super) struct Request<B> {
    body: B,
    desk: Arc<Desk>,
    prefix: [u8; PREFIX],
    /// How much of the prefix was read.
    seen: usize,
    /// How much of the message was not.
    missing: usize,
    /// Held until the message is read, as it is kept until then.
    claim: Option<Claim>,
}

impl<B> Request<B> {
    /// Takes a body that is read for a plugin.
    pub(super) fn new(body: B, desk: Arc<Desk>) -> Self {
        Self {
            body,
            desk,
            prefix: [0; PREFIX],
            seen: 0,
            missing: 0,
            claim: None,
        }
    }

    /// Looks at what was read.
    fn see(&mut self, bytes: &[u8]) -> Result<(), Status> {
        let (of_prefix, of_message) = bytes.split_at(bytes.len().min(PREFIX - self.seen));
        if !of_prefix.is_empty() {
            self.prefix[self.seen..][..of_prefix.len()].copy_from_slice(of_prefix);
            self.seen += of_prefix.len();
            if self.seen < PREFIX {
                return Ok(());
            }
            self.expect_message()?;
        }
        // What follows the message would be read as another one, of any length.
        self.missing = self
            .missing
            .checked_sub(of_message.len())
            .ok_or_else(|| Status::internal("the call has more than one message"))?;
        Ok(())
    }

    /// Looks at the prefix, which is there.
    fn expect_message(&mut self) -> Result<(), Status> {
        let [_, length @ ..] = self.prefix;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_MESSAGE {
            return Err(Status::resource_exhausted(format!(
                "grpc: received message larger than max ({length} vs. {MAX_MESSAGE})"
            )));
        }
        let claim = self.desk.0.claim(length);
        self.claim = Some(claim.ok_or_else(|| {
            Status::resource_exhausted("the calls that are under way take too much memory")
        })?);
        self.missing = length;
        Ok(())
    }
}

impl<B> Body for Request<B>
where
    B: Body<Data = Bytes, Error: Into<StdError>> + Unpin,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        if let Some(bytes) = frame.data_ref()
            && let Err(status) = self.see(bytes)
        {
            return Poll::Ready(Some(Err(status.into())));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
