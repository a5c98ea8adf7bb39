//! A host that behaves on the wire as the reference does, controlled by a test.

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

/// The service URL of the host.
pub const SERVICE_URL: &str = "https://example.com";

/// The idle time before a ping, and the time to answer it.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(20));

/// A call of a plugin, as its test receives it.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The first ListAdmissions.
    Connected(ListAdmissionsRequest),
    /// A further ListAdmissions, which failed.
    AskedAgain,
    /// A verdict.
    Resolved(ResolveAdmissionRequest),
    /// A log line.
    Logged(LogRequest),
    /// A metadata call.
    Listed(ListMetadataRequest),
}

/// A host with one gRPC server for its plugins.
pub struct PeerHost {
    /// `None` once the host was stopped.
    runtime: Option<Runtime>,
    port: u16,
    plugins: Plugins,
}

/// How the host replies to a plugin's calls.
#[derive(Clone)]
pub struct Behaviour {
    /// Answers metadata calls.
    pub metadata: Arc<dyn Fn(ListMetadataRequest) -> Listing + Send + Sync>,
    /// The reply to each verdict.
    pub verdicts: Result<(), Status>,
}

/// The reply to a metadata call.
pub type Listing = BoxFuture<'static, Result<ListMetadataResponse, Status>>;

/// The plugins by their tickets.
type Plugins = Arc<Mutex<HashMap<String, Arc<PluginState>>>>;

/// State of one plugin that the services share with its test.
struct PluginState {
    events: mpsc::Sender<Event>,
    /// Taken by the first ListAdmissions.
    admissions: Mutex<Option<mpsc::Receiver<Result<Admission, Status>>>>,
    behaviour: Behaviour,
}

impl Default for Behaviour {
    /// Fails metadata calls as unimplemented, and accepts verdicts.
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
    /// Starts the host.
    ///
    /// # Panics
    ///
    /// If it cannot listen or start a thread.
    #[must_use]
    pub fn start() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let plugins = Plugins::default();
        let services = Services::new(Arc::clone(&plugins));
        let (interval, timeout) = KEEPALIVE;
        let entered = runtime.enter();
        let incoming = TcpIncoming::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .expect("a port")
            .with_nodelay(Some(true));
        let port = incoming.local_addr().expect("a local address").port();
        let server = Server::builder()
            .http2_keepalive_interval(Some(interval))
            .http2_keepalive_timeout(Some(timeout))
            .add_service(HostServer::new(services.clone()))
            .add_service(AdmissionsServer::new(services))
            .serve_with_incoming(incoming);
        drop(entered);
        runtime.handle().spawn(async {
            server.await.expect("the server does not fail");
        });
        Self {
            runtime: Some(runtime),
            port,
            plugins,
        }
    }

    /// Stops the server abruptly: closes the connections and drops running calls.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Returns the port of the server.
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

/// Returns the status with which the reference ends the stream of admissions on a close.
#[must_use]
pub fn terminating() -> Status {
    Status::new(Code::Aborted, "terminating")
}
