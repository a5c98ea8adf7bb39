//! A host that behaves on the wire as the reference does, and does what a test says.

mod plugin;
mod services;

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use admission_grpc::admissions_server::AdmissionsServer;
use admission_grpc::host_server::HostServer;
use admission_proto::wire::plugin::{
    Admission, ListAdmissionsRequest, ListMetadataRequest, ListMetadataResponse, LogRequest,
    ResolveAdmissionRequest,
};
use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};

pub use plugin::{Plugin, admission};
use services::Services;

/// The service URL that the host has unless a test says otherwise.
pub const SERVICE_URL: &str = "https://example.com";

/// How often an idle connection is pinged, and how long it has to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(20));

/// What a plugin says that its test hears of.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It asked for admissions for the first time.
    Connected(ListAdmissionsRequest),
    /// It asked for them once more, which failed.
    AskedAgain,
    /// It gave a verdict.
    Resolved(ResolveAdmissionRequest),
    /// It logged a line.
    Logged(LogRequest),
    /// It asked for a page of metadata.
    Listed(ListMetadataRequest),
}

/// A host.
pub struct PeerHost {
    /// Taken when it is stopped.
    runtime: Option<Runtime>,
    port: u16,
    desks: Desks,
}

/// What a host does for its plugins.
#[derive(Clone)]
pub struct Behaviour {
    /// Answers calls for metadata.
    pub metadata: Arc<dyn Fn(ListMetadataRequest) -> Listing + Send + Sync>,
    /// What each verdict is answered with, if it is not taken.
    pub verdicts: Result<(), Status>,
}

/// What comes of a call for metadata.
pub type Listing = BoxFuture<'static, Result<ListMetadataResponse, Status>>;

/// What the host has for each plugin, by its ticket.
type Desks = Arc<Mutex<HashMap<String, Arc<Desk>>>>;

struct Desk {
    events: mpsc::Sender<Event>,
    /// Taken by the first who asks.
    admissions: Mutex<Option<mpsc::Receiver<Result<Admission, Status>>>>,
    behaviour: Behaviour,
}

impl Default for Behaviour {
    /// There is no metadata, and verdicts are taken.
    fn default() -> Self {
        let missing = "a RepositoryClient implementation is not provided";
        Self {
            metadata: Arc::new(move |_| {
                Box::pin(async move { Err(Status::unimplemented(missing)) })
            }),
            verdicts: Ok(()),
        }
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour").finish_non_exhaustive()
    }
}

impl PeerHost {
    /// Starts to listen.
    ///
    /// # Panics
    ///
    /// If there is no port or no thread to be had.
    #[must_use]
    pub fn start() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let desks = Desks::default();
        let services = Services::new(Arc::clone(&desks));
        let (interval, timeout) = KEEPALIVE;
        let entered = runtime.enter();
        let incoming = TcpIncoming::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .expect("a port")
            .with_nodelay(Some(true));
        let port = incoming.local_addr().expect("it has an address").port();
        let server = Server::builder()
            .http2_keepalive_interval(Some(interval))
            .http2_keepalive_timeout(Some(timeout))
            .add_service(HostServer::new(services.clone()))
            .add_service(AdmissionsServer::new(services))
            .serve_with_incoming(incoming);
        drop(entered);
        runtime.handle().spawn(async {
            server.await.expect("it serves");
        });
        Self {
            runtime: Some(runtime),
            port,
            desks,
        }
    }

    /// Stops to serve abruptly: connections are cut and running calls dropped.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Returns the port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for PeerHost {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for PeerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerHost").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The status with which the reference ends a stream that it closes.
#[must_use]
pub fn terminating() -> Status {
    Status::new(Code::Aborted, "terminating")
}
