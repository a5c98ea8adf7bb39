//! A plugin's connection to a host that speaks gRPC, below [`run_plugin`](crate::run_plugin).
//!
//! It is for a plugin that is no admission plugin, or not only one: it says itself when
//! to ask for admissions, if at all. Only native plugins have it, and only hosts that
//! speak gRPC, such as the stock `cipd` client, offer it.

mod http2;
mod status;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use admission_grpc::admissions_client::AdmissionsClient;
use admission_grpc::host_client::HostClient;
use admission_proto::wire::PROTOCOL_VERSION;
use admission_proto::wire::plugin::{
    self, ListAdmissionsRequest, ListMetadataRequest, ListMetadataResponse, LogRequest,
    ResolveAdmissionRequest,
};
use admission_proto::{Admission, Status};
use futures_util::StreamExt as _;
use http::{HeaderValue, Uri};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tonic::{Response, Streaming};

use self::http2::Http2;
pub(super) use self::status::Failure;
use super::handshake::{self, Handshake};
use super::stdio::{self, Input};
use super::{first_bytes, spawn};
use crate::info::MetadataPage;
use crate::{RunError, verdict};

/// Longest message that the host takes, in bytes: that of the reference.
pub(super) const SEND_LIMIT: usize = 4 << 20;

/// Longest message that is taken from the host, in bytes. The reference's service may
/// answer with 32 MiB of metadata at once, and its host hands that on.
const RECEIVE_LIMIT: usize = 64 << 20;

/// A connection to the host of this process.
///
/// Its clones are the same connection; it closes when the last of them is dropped, and
/// the last [`Admissions`]. Calls may be awaited in any runtime, or in none: a thread of the
/// connection's own serves it, so that nobody who blocks keeps it from answering the host.
///
/// ```no_run
/// use admission_sdk::connection::{Connection, Severity};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let connection = Connection::open().await?;
/// connection.log(Severity::Info, "ready").await?;
/// connection.ended().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connection {
    admissions: AdmissionsClient<Http2>,
    host: HostClient<Http2>,
    stdin: StdinEnded,
}

/// How severe a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the protocol has these four")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Severity {
    Debug,
    Info,
    Warning,
    Error,
}

/// Where to hear of the end of stdin: it comes when the sender is dropped.
pub(super) type StdinEnded = watch::Receiver<()>;

/// What the host wants to have judged, as it comes.
pub struct Admissions(Stage);

enum Stage {
    /// The reference sends the head of its response with the first admission only.
    Called(Pin<Box<dyn Future<Output = Called> + Send>>),
    Streaming(Box<Streaming<plugin::Admission>>),
    Ended,
}

type Called = Result<Response<Streaming<plugin::Admission>>, tonic::Status>;

impl Connection {
    /// Takes stdin and stdout, reads the handshake and connects.
    ///
    /// From then on stdin is empty and `println!` goes to stderr, as with
    /// [`run_plugin`](crate::run_plugin). Nothing bounds how long a host may take to write
    /// its handshake.
    ///
    /// # Errors
    ///
    /// [`RunError`]: when stdin has no handshake or nobody listens where it says, and when
    /// this or `run_plugin` was called before.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection. It cannot be opened again.
    pub async fn open() -> Result<Self, RunError> {
        let (input, _) = stdio::take()?;
        let (opened, connection) = oneshot::channel();
        spawn("admission-grpc", move || serve(input, opened))?;
        connection.await.expect("its sender tells how it went")
    }

    /// Connects to the host that wrote `handshake`. The future has to be polled in the
    /// background; it ends when the connection does, or is dropped in all its clones.
    pub(super) async fn connect(
        handshake: &Handshake,
        stdin: StdinEnded,
    ) -> Result<(Self, impl Future<Output = ()> + use<>), RunError> {
        let failed = |source| RunError::Connect {
            port: handshake.port,
            source,
        };
        let ticket = HeaderValue::try_from(&handshake.ticket)
            .map_err(|error| RunError::Handshake(Box::new(error)))?;
        let (http2, connection) = http2::connect(handshake.port, ticket)
            .await
            .map_err(failed)?;
        let origin = Uri::builder()
            .scheme("http")
            .authority(format!("127.0.0.1:{}", handshake.port))
            .path_and_query("/")
            .build()
            .expect("an address makes an authority");
        let this = Self {
            admissions: AdmissionsClient::with_origin(http2.clone(), origin.clone())
                .max_decoding_message_size(RECEIVE_LIMIT),
            host: HostClient::with_origin(http2, origin).max_decoding_message_size(RECEIVE_LIMIT),
            stdin,
        };
        // How the connection ended is known to each of its calls.
        Ok((this, async { drop(connection.await) }))
    }

    /// Asks the host for what is to be judged; `plugin_version` is for its logs.
    ///
    /// A host gives this to a plugin once, and wants to be asked soon after the
    /// connection is there.
    #[must_use = "the call is made when the stream is polled"]
    pub fn list_admissions(&self, plugin_version: &str) -> Admissions {
        let request = ListAdmissionsRequest {
            protocol_version: PROTOCOL_VERSION,
            plugin_version: plugin_version.to_owned(),
        };
        let mut client = self.admissions.clone();
        Admissions(Stage::Called(Box::pin(async move {
            client.list_admissions(request).await
        })))
    }

    /// Tells the host a verdict: `Ok(())` admits, [`Status::denied`] denies.
    ///
    /// # Errors
    ///
    /// The host's status, or UNAVAILABLE if the connection is lost; then the host may
    /// never have heard it.
    pub async fn resolve_admission(
        &self,
        admission_id: &str,
        outcome: Result<(), Status>,
    ) -> Result<(), Status> {
        let request = verdict::request(admission_id, outcome, SEND_LIMIT);
        Ok(self.resolve(request).await?)
    }

    /// Has the host log a line.
    ///
    /// # Errors
    ///
    /// The host's status, or UNAVAILABLE if the connection is lost.
    pub async fn log(&self, severity: Severity, message: &str) -> Result<(), Status> {
        let severity = severity.word().to_owned();
        let message = message.to_owned();
        Ok(self.write(LogRequest { severity, message }).await?)
    }

    /// Fetches a page of the metadata of the instance that `admission` is about.
    ///
    /// Size and token go to the host as they are, as those of
    /// [`InstanceInfo::list_metadata`](crate::InstanceInfo::list_metadata).
    ///
    /// # Errors
    ///
    /// The host's status, or UNAVAILABLE if the connection is lost.
    pub async fn list_metadata(
        &self,
        admission: &Admission,
        keys: &[&str],
        page_size: i32,
        page_token: &str,
    ) -> Result<MetadataPage, Status> {
        let request = crate::info::request(admission, keys, page_size, page_token);
        Ok(self.page(request).await?.into())
    }

    /// Waits until the host asks the plugin to finish, by the end of stdin.
    pub async fn ended(&self) {
        let mut stdin = self.stdin.clone();
        while stdin.changed().await.is_ok() {}
    }

    pub(super) fn resolve(
        &self,
        request: ResolveAdmissionRequest,
    ) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let mut client = self.admissions.clone();
        async move { done(client.resolve_admission(request).await) }
    }

    pub(super) fn write(
        &self,
        request: LogRequest,
    ) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let mut client = self.host.clone();
        async move { done(client.log(request).await) }
    }

    pub(super) fn page(
        &self,
        request: ListMetadataRequest,
    ) -> impl Future<Output = Result<ListMetadataResponse, Failure>> + Send + use<> {
        let mut client = self.host.clone();
        async move { done(client.list_metadata(request).await) }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Admissions {
    /// Waits for the next admission; `None` is the end, for whatever reason the host has.
    ///
    /// # Errors
    ///
    /// The status with which the host ended the stream, or UNAVAILABLE if the connection
    /// is lost. It is the last thing that is returned before `None`.
    ///
    /// # Cancel safety
    ///
    /// No admission is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<Admission>, Status> {
        let next = poll_fn(|cx| self.poll_next(cx)).await?;
        Ok(next.map(Admission::from_wire))
    }

    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<plugin::Admission>, Failure>> {
        loop {
            let next = match &mut self.0 {
                Stage::Called(call) => match ready!(call.as_mut().poll(cx)) {
                    Ok(response) => {
                        self.0 = Stage::Streaming(Box::new(response.into_inner()));
                        continue;
                    }
                    Err(status) => Err(status.into()),
                },
                Stage::Streaming(stream) => match ready!(stream.poll_next_unpin(cx)) {
                    Some(Ok(admission)) => return Poll::Ready(Ok(Some(admission))),
                    Some(Err(status)) => Err(status.into()),
                    None => Ok(None),
                },
                Stage::Ended => Ok(None),
            };
            self.0 = Stage::Ended;
            return Poll::Ready(next);
        }
    }
}

impl fmt::Debug for Admissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admissions").finish_non_exhaustive()
    }
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Serves a connection that an author opens, until it ends.
fn serve(input: Input, opened: oneshot::Sender<Result<Connection, RunError>>) {
    let outcome = Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(RunError::Thread)
        .and_then(|runtime| {
            let (handshake, stdin) = listen(input)?;
            let (connection, serving) = runtime.block_on(Connection::connect(&handshake, stdin))?;
            Ok((connection, runtime, serving))
        });
    match outcome {
        Ok((connection, runtime, serving)) => {
            // If nobody wants the connection any more, this drops it, which ends it.
            drop(opened.send(Ok(connection)));
            runtime.block_on(serving);
        }
        Err(error) => drop(opened.send(Err(error))),
    }
}

/// Reads the handshake, and has the end of stdin awaited.
fn listen(input: Input) -> Result<(Handshake, StdinEnded), RunError> {
    let first = first_bytes(&input)?;
    let handshake = handshake::read(&input, first)?;
    let (end, ended) = watch::channel(());
    spawn("admission-read", move || {
        // An input that fails has ended, too.
        drop(handshake::drain(&input));
        drop(end);
    })?;
    Ok((handshake, ended))
}

fn done<T>(outcome: Result<Response<T>, tonic::Status>) -> Result<T, Failure> {
    Ok(outcome?.into_inner())
}
