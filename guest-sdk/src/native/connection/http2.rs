//! HTTP/2 as tonic's clients want it, without tonic's channel.
//!
//! The channel takes each call through two queues and a task of its own; here a call is
//! staged on the caller's thread. It also reconnects, which a ticket is not good for.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use admission_grpc::TICKET;
use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::client::GrpcService;

type BoxError = Box<dyn Error + Send + Sync>;

/// Bytes of one stream that the host may send ahead of what is read.
const STREAM_WINDOW: u32 = 1 << 20;

/// Bytes of all streams together. Far more than of one: h2 ends a connection that
/// owes it the reading of many small messages, and allows for half of this.
const CONNECTION_WINDOW: u32 = 16 << 20;

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("admission-sdk/", env!("CARGO_PKG_VERSION")));

/// Sends calls that carry the ticket of this plugin.
#[derive(Clone)]
pub(super) struct Http2 {
    calls: SendRequest<Bytes>,
    ticket: HeaderValue,
}

/// Connects to a host. The connection has to be polled for anything to happen.
///
/// No pings are sent: the reference takes them for an attack.
pub(super) async fn connect(
    port: u16,
    ticket: HeaderValue,
) -> io::Result<(Http2, Connection<TcpStream, Bytes>)> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (calls, connection) = Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    Ok((Http2 { calls, ticket }, connection))
}

impl GrpcService<Body> for Http2 {
    type ResponseBody = Incoming;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // A connection that is lost says so to the call itself, with the cause.
        let _ = ready!(self.calls.poll_ready(cx));
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        head.headers
            .insert(HeaderName::from_static(TICKET), self.ticket.clone());
        head.headers.insert(USER_AGENT, AGENT);
        let head = Request::from_parts(head, ());
        let staged = self.calls.send_request(head, false);
        Box::pin(async move {
            let (response, stream) = staged?;
            send(body, stream).await?;
            Ok(response.await?.map(Incoming))
        })
    }
}

/// Sends all of `body`, and the end of the stream with its last part.
async fn send(mut body: Body, mut stream: SendStream<Bytes>) -> Result<(), BoxError> {
    let mut part = next(&mut body).await?.unwrap_or_default();
    while let Some(following) = next(&mut body).await? {
        stream.send_data(part, false)?;
        part = following;
    }
    stream.send_data(part, true)?;
    Ok(())
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, BoxError> {
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
    Ok(frame.transpose()?.and_then(|frame| frame.into_data().ok()))
}

/// The body of a response.
#[derive(Debug)]
pub(super) struct Incoming(RecvStream);

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(data) = ready!(self.0.poll_data(cx)) {
            let freed = |data: Bytes| {
                self.0.flow_control().release_capacity(data.len())?;
                Ok(Frame::data(data))
            };
            return Poll::Ready(Some(data.and_then(freed)));
        }
        let trailers = ready!(self.0.poll_trailers(cx));
        Poll::Ready(
            trailers
                .transpose()
                .map(|trailers| trailers.map(Frame::trailers)),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}
