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
            claim: None,
        }
    }

    /// Looks at what was read.
    fn see(&mut self, bytes: &[u8]) -> Result<(), Status> {
        if self.seen == PREFIX {
            return Ok(());
        }
        let missing = &mut self.prefix[self.seen..];
        let more = missing.len().min(bytes.len());
        missing[..more].copy_from_slice(&bytes[..more]);
        self.seen += more;
        if self.seen < PREFIX {
            return Ok(());
        }
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
