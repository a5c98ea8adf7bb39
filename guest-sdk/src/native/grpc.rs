//! The gRPC wire: sends the outbox as calls, and opens a check for each admission.
//!
//! The host gets the lines of a check in order and before its verdict, as on the stdio wire.

mod handshake;
mod http2;

use std::collections::HashMap;
use std::error::Error as _;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use admission_grpc::admissions_client::AdmissionsClient;
use admission_grpc::host_client::HostClient;
use admission_proto::wire::plugin::{LogRequest, ResolveAdmissionRequest};
use admission_proto::wire::stdio::ListMetadataCall;
use admission_proto::wire::{Message as _, rpc};
use admission_proto::{Code, Status};
use http::{HeaderValue, Uri};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, unconstrained};
use tokio::time::timeout;
use tracing::subscriber::{NoSubscriber, set_default};

use self::handshake::Handshake;
use self::http2::Http2;
use super::RunLoop;
use super::stdio::Input;
use crate::check::Check;
use crate::outbox::Outbound;
use crate::session::Session;
use crate::{Handler, RunError};

/// Longest message that the host accepts, in bytes: the reference's limit.
const MAX_SENT_MESSAGE: usize = 4 << 20;

/// Longest message that the plugin accepts, in bytes. A service may reply with 32 MiB of
/// metadata, and the reference's host forwards the reply whole.
const MAX_RECEIVED_MESSAGE: usize = 64 << 20;

/// Most verdicts and lines in flight or waiting for an earlier line.
const MAX_SENDS: u32 = 1024;

/// Most pending checks. Further admissions are not read from the stream. On the stdio wire, a
/// host has as many checks in flight.
const MAX_PENDING: u32 = 16 << 10;

/// Time to wait for the end of stdin after a failure. A host that closes the plugin revokes the
/// ticket, stops listening and ends stdin, in any order, so a failure just before the end of
/// stdin is not an error.
const END_GRACE: Duration = Duration::from_millis(50);

/// Reads the handshake line, which starts with `first`, runs the gRPC session on another
/// thread, and returns at the end of stdin.
pub(super) fn serve<H: Handler>(
    input: &Input,
    first: Vec<u8>,
    run_loop: &Arc<RunLoop<H>>,
) -> Result<(), RunError> {
    let handshake = Handshake::read(input, first)?;
    // The sender is dropped at the end of stdin.
    let (_stdin_open, stdin_ended) = oneshot::channel();
    run_loop.spawn_writer("admission-grpc", move |run_loop| {
        // The gRPC libraries would send their own events to the host, which causes new events.
        let _quiet = set_default(NoSubscriber::default());
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(RunError::Thread)?;
        let running = run(&handshake, stdin_ended, run_loop, runtime.handle());
        // Admissions must be read as fast as they arrive: h2 closes a connection on which too
        // many small messages are unread.
        runtime.block_on(unconstrained(running))
    })?;
    let mut ignored = Vec::new();
    while input.read_more(&mut ignored)? {
        ignored.clear();
    }
    Ok(())
}

/// Runs the session until the outbox is closed and sent, the host ends the stream of
/// admissions and has every verdict, or something fails.
async fn run<H: Handler>(
    handshake: &Handshake,
    stdin_ended: oneshot::Receiver<()>,
    run_loop: &RunLoop<H>,
    tasks: &Handle,
) -> Result<(), RunError> {
    let ticket = HeaderValue::try_from(&handshake.ticket)
        .map_err(|error| RunError::Handshake(Box::new(error)))?;
    let port = handshake.port.get();
    let (http2, connection) = http2::connect(port, ticket)
        .await
        .map_err(|source| RunError::Connect { port, source })?;
    run_loop.session.set_frame_limit(MAX_SENT_MESSAGE);
    // The calls fail with the cause when the connection ends.
    let connection = tasks.spawn(async { drop(connection.await) });
    let (failures, mut failure) = mpsc::channel(1);
    let calls = Arc::new(Calls::new(
        http2,
        port,
        Arc::clone(&run_loop.session),
        failures,
    ));
    let outcome = tokio::select! {
        // The order matters: the error of a call names why the connection was lost.
        biased;
        () = send_outbox(&calls, tasks) => Ok(()),
        Some(error) = failure.recv() => Err(error),
        error = receive_admissions(&calls, |check| run_loop.start(check)) => Err(error),
        _ = connection => calls.handle_connection_end(),
    };
    match outcome {
        Err(_) if timeout(END_GRACE, stdin_ended).await.is_ok() => Ok(()),
        outcome => outcome,
    }
}

/// State that the tasks of a gRPC session share.
struct Calls {
    session: Arc<Session>,
    admissions: AdmissionsClient<Http2>,
    host: HostClient<Http2>,
    /// Whether the host has ended the stream of admissions.
    stream_ended: AtomicBool,
    /// Has a permit for each of [`MAX_PENDING`] checks. A pending check holds one.
    check_slots: Semaphore,
    /// Has [`MAX_SENDS`] permits. A verdict or line holds one until the host has replied.
    send_slots: Arc<Semaphore>,
    /// Receives the first error of a verdict, which ends the session.
    failures: mpsc::Sender<RunError>,
}

impl Calls {
    fn new(
        http2: Http2,
        port: u16,
        session: Arc<Session>,
        failures: mpsc::Sender<RunError>,
    ) -> Self {
        let origin = Uri::builder()
            .scheme("http")
            .authority(format!("127.0.0.1:{port}"))
            .path_and_query("/")
            .build()
            .expect("an address is a valid authority");
        Self {
            session,
            admissions: AdmissionsClient::with_origin(http2.clone(), origin.clone())
                .max_decoding_message_size(MAX_RECEIVED_MESSAGE),
            host: HostClient::with_origin(http2, origin)
                .max_decoding_message_size(MAX_RECEIVED_MESSAGE),
            stream_ended: AtomicBool::new(false),
            check_slots: Semaphore::new(MAX_PENDING as usize),
            send_slots: Arc::new(Semaphore::new(MAX_SENDS as usize)),
            failures,
        }
    }

    async fn send_verdict(&self, verdict: ResolveAdmissionRequest) {
        if let Err(status) = self.admissions.clone().resolve_admission(verdict).await
            // A host that has ended the session may reject the verdict.
            && !(self.stream_ended() || self.session.outbox.is_closed())
        {
            let error = match Failure::from(status) {
                Failure::Host(source) => RunError::Verdict {
                    pending: self.session.pending(),
                    source,
                },
                Failure::Lost(cause) => self.describe_loss(cause),
            };
            // A full channel holds an earlier failure.
            let _ = self.failures.try_send(error);
            return;
        }
        self.session.verdicts_written(1);
        self.check_slots.add_permits(1);
    }

    async fn send_line(&self, line: LogRequest) {
        // A host that rejects a line still wants verdicts. If the connection is lost, the
        // stream of admissions fails, too.
        let _ = self.host.clone().log(line).await;
    }

    async fn send_metadata_call(&self, call: ListMetadataCall) {
        let request = call.request.unwrap_or_default();
        let reply = self.host.clone().list_metadata(request).await;
        let reply =
            reply
                .map(tonic::Response::into_inner)
                .map_err(|status| match Failure::from(status) {
                    Failure::Host(status) => status,
                    Failure::Lost(cause) => Status::new(
                        Code::UNAVAILABLE,
                        format!("the connection to the host is lost: {cause}"),
                    ),
                });
        self.session.metadata_calls.complete(call.call_id, reply);
    }

    fn stream_ended(&self) -> bool {
        self.stream_ended.load(Ordering::Relaxed)
    }

    fn handle_connection_end(&self) -> Result<(), RunError> {
        if self.stream_ended() {
            Ok(())
        } else {
            Err(self.describe_loss("it has ended".to_owned()))
        }
    }

    fn describe_loss(&self, cause: String) -> RunError {
        RunError::Lost {
            pending: self.session.pending(),
            source: Status::new(Code::UNAVAILABLE, cause),
        }
    }
}

/// Opens a check for each admission, and passes it to `start`.
///
/// Returns only when it fails. Once the host has ended the stream and has every verdict, it
/// closes the outbox, which ends the session.
async fn receive_admissions(calls: &Calls, start: impl Fn(Arc<Check>)) -> RunError {
    let receiving = async {
        let request = calls.session.connect_request();
        let response = calls.admissions.clone().list_admissions(request).await?;
        let mut stream = response.into_inner();
        loop {
            let slot = calls.check_slots.acquire().await;
            let Some(admission) = stream.message().await? else {
                return Ok::<(), tonic::Status>(());
            };
            slot.expect("the semaphore is never closed").forget();
            start(calls.session.open_check(admission));
        }
    };
    match receiving.await.map_err(Failure::from) {
        Ok(()) => {}
        // With these codes a host ends the stream without an error.
        Err(Failure::Host(status))
            if matches!(
                status.code,
                Code::ABORTED | Code::CANCELLED | Code::UNAVAILABLE
            ) => {}
        Err(Failure::Host(status)) => return RunError::Stream(status),
        Err(Failure::Lost(cause)) => return calls.describe_loss(cause),
    }
    calls.stream_ended.store(true, Ordering::Relaxed);
    drop(calls.check_slots.acquire_many(MAX_PENDING).await);
    calls.session.outbox.close();
    pending().await
}

/// Sends the outbox, each frame in a task, until it is closed and every call has a reply.
///
/// The host may handle calls in any order. A line therefore waits for the reply to the previous
/// line of the same check. A verdict waits for the lines of its check. It also waits for lines
/// without a check, because a task that the handler spawned may have logged them.
async fn send_outbox(calls: &Arc<Calls>, tasks: &Handle) {
    // By admission ID, or `None` for lines without a check: a channel that closes when the host
    // has replied to the last line.
    let mut last_lines: HashMap<Option<String>, watch::Receiver<()>> = HashMap::new();
    let mut metadata_calls: Vec<(String, AbortHandle)> = Vec::new();
    while let Some(batch) = calls.session.outbox.take().await {
        for outbound in batch {
            let calls = Arc::clone(calls);
            match outbound {
                // The call of ListAdmissions has sent it already.
                Outbound::Connect(_) => {}
                Outbound::Log { line, admission_id } => {
                    let slot = Arc::clone(&calls.send_slots).acquire_owned().await;
                    let (replied, is_replied) = watch::channel(());
                    let previous = last_lines.insert(admission_id, is_replied);
                    tasks.spawn(async move {
                        wait_for_close(previous).await;
                        calls.send_line(line).await;
                        drop((replied, slot));
                    });
                }
                Outbound::Verdict(verdict) => {
                    let id = &verdict.admission_id;
                    // The host cancels the metadata calls of a check that has a verdict.
                    for (_, task) in metadata_calls.extract_if(.., |(its, _)| its == id) {
                        task.abort();
                    }
                    let slot = Arc::clone(&calls.send_slots).acquire_owned().await;
                    let own = last_lines.remove(&Some(id.clone()));
                    let other = last_lines.get(&None).cloned();
                    tasks.spawn(async move {
                        wait_for_close(own).await;
                        wait_for_close(other).await;
                        calls.send_verdict(verdict).await;
                        drop(slot);
                    });
                }
                Outbound::MetadataCall(call) => {
                    metadata_calls.retain(|(_, task)| !task.is_finished());
                    let id = call.admission_id.clone();
                    let task = tasks.spawn(async move { calls.send_metadata_call(*call).await });
                    metadata_calls.push((id, task.abort_handle()));
                }
            }
        }
    }
    drop(calls.send_slots.acquire_many(MAX_SENDS).await);
}

async fn wait_for_close(channel: Option<watch::Receiver<()>>) {
    if let Some(mut channel) = channel {
        // No value is ever sent, so this returns only when the sender is dropped.
        let _ = channel.changed().await;
    }
}

/// Why a call failed.
enum Failure {
    /// The host replied with an error.
    Host(Status),
    /// The connection was lost, with this cause.
    Lost(String),
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        // A status that the host sent has no local cause.
        if let Some(source) = status.source() {
            return Self::Lost(source.to_string());
        }
        let mut failure = Status::new((status.code() as i32).into(), status.message());
        // The header for details holds the whole status, encoded once more.
        if let Ok(whole) = rpc::Status::decode(status.details()) {
            failure.details = Status::from(whole).details;
        }
        Self::Host(failure)
    }
}
