//! HTTP/2 for tonic's clients, without tonic's channel.
//!
//! The channel passes each call through two queues and a task. Here the caller's thread sends
//! it. The channel also reconnects, but a ticket is valid for one connection only.

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

/// Flow-control window of a stream, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;

/// Flow-control window of the connection, in bytes. It is far larger than that of a stream,
/// because h2 closes a connection when unread small messages take more than half of it.
const CONNECTION_WINDOW: u32 = 16 << 20;

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("admission-sdk/", env!("CARGO_PKG_VERSION")));

/// Sends calls with the ticket of this plugin.
#[derive(Clone)]
pub(super) struct Http2 {
    requests: SendRequest<Bytes>,
    ticket: HeaderValue,
}

/// Connects to a host. The caller must poll the connection.
///
/// The connection sends no pings, because the reference treats them as abuse.
pub(super) async fn connect(
    port: u16,
    ticket: HeaderValue,
) -> io::Result<(Http2, Connection<TcpStream, Bytes>)> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (requests, connection) = Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    Ok((Http2 { requests, ticket }, connection))
}

impl GrpcService<Body> for Http2 {
    type ResponseBody = Incoming;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // If the connection is lost, the call itself fails, with the cause.
        let _ = ready!(self.requests.poll_ready(cx));
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        head.headers
            .insert(HeaderName::from_static(TICKET), self.ticket.clone());
        head.headers.insert(USER_AGENT, AGENT);
        let head = Request::from_parts(head, ());
        let sent = self.requests.send_request(head, false);
        Box::pin(async move {
            let (response, stream) = sent?;
            send(body, stream).await?;
            Ok(response.await?.map(Incoming))
        })
    }
}

/// Sends `body`, and ends the stream with its last part.
async fn send(mut body: Body, mut stream: SendStream<Bytes>) -> Result<(), BoxError> {
    let mut part = next_part(&mut body).await?.unwrap_or_default();
    while let Some(following) = next_part(&mut body).await? {
        stream.send_data(part, false)?;
        part = following;
    }
    stream.send_data(part, true)?;
    Ok(())
}

async fn next_part(body: &mut Body) -> Result<Option<Bytes>, BoxError> {
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
            let release = |data: Bytes| {
                self.0.flow_control().release_capacity(data.len())?;
                Ok(Frame::data(data))
            };
            return Poll::Ready(Some(data.and_then(release)));
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
