//! The gRPC wire, implemented with tonic only.

use std::future::Future;
use std::io::{self, BufRead as _, Read as _};
use std::str::FromStr as _;

use admission_grpc::TICKET;
use admission_grpc::admissions_client::AdmissionsClient;
use admission_grpc::host_client::HostClient;
use admission_proto::wire::plugin::{
    Admission, ListAdmissionsRequest, ListMetadataRequest, ListMetadataResponse, LogRequest,
    ResolveAdmissionRequest,
};
use admission_proto::wire::rpc;
use tokio::runtime::{self, Runtime};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// The first line of stdin.
#[derive(Clone)]
pub(crate) struct Handshake {
    pub(crate) port: u16,
    pub(crate) ticket: String,
}

/// Blocking calls of one plugin.
pub(crate) struct Wire {
    pub(crate) handshake: Handshake,
    pub(crate) runtime: Runtime,
    pub(crate) host: HostClient<Channel>,
    pub(crate) admissions: AdmissionsClient<Channel>,
    stream: Option<Streaming<Admission>>,
}

impl Handshake {
    /// Reads the handshake line, and nothing after it.
    pub(crate) fn read() -> Self {
        let mut line = String::new();
        let mut stdin = io::stdin().lock();
        stdin.read_line(&mut line).expect("a readable stdin");
        let line: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        let fields = line.as_object().expect("an object");
        assert_eq!(fields.len(), 2, "the reference's plugins know two fields");
        let port = fields["port"].as_u64().expect("a number");
        Self {
            port: port.try_into().expect("a port"),
            ticket: fields["ticket"].as_str().expect("a string").to_owned(),
        }
    }

    /// Returns a channel that connects with its first call.
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port))
            .expect("an address")
            .initial_stream_window_size(64 << 20)
            // h2 closes a connection with too many unread small messages; half of this
            // window is its limit.
            .initial_connection_window_size(64 << 20)
            .connect_lazy()
    }

    /// Returns a request that carries the ticket.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        with_tickets(message, &[&self.ticket])
    }
}

/// Returns a request that carries these tickets.
pub(crate) fn with_tickets<T>(message: T, tickets: &[&str]) -> Request<T> {
    let mut request = Request::new(message);
    for ticket in tickets {
        let ticket = MetadataValue::from_str(ticket).expect("ASCII");
        request.metadata_mut().append(TICKET, ticket);
    }
    request
}

impl Wire {
    /// Reads the handshake. The first call connects.
    pub(crate) fn new() -> Self {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let handshake = Handshake::read();
        let channel = {
            let _in_runtime = runtime.enter();
            handshake.channel()
        };
        Self {
            handshake,
            runtime,
            host: HostClient::new(channel.clone()),
            admissions: AdmissionsClient::new(channel),
            stream: None,
        }
    }

    /// Returns a channel with a connection of its own.
    pub(crate) fn channel(&self) -> Channel {
        let _in_runtime = self.runtime.enter();
        self.handshake.channel()
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Calls ListAdmissions. If it succeeds, its stream replaces the previous one.
    pub(crate) fn list_admissions(&mut self, protocol_version: i32) -> Result<(), Status> {
        let request = self.handshake.request(ListAdmissionsRequest {
            protocol_version,
            plugin_version: "peer".into(),
        });
        let stream = self
            .runtime
            .block_on(self.admissions.list_admissions(request))?;
        self.stream = Some(stream.into_inner());
        Ok(())
    }

    pub(crate) fn connect(&mut self) {
        self.list_admissions(1).expect("the host accepts it");
    }

    pub(crate) fn connect_and(&mut self, mut handle: impl FnMut(&mut Self, Admission)) {
        self.connect();
        while let Ok(admission) = self.next() {
            handle(self, admission);
        }
    }

    /// Returns the next admission, or the status with which the stream ends.
    pub(crate) fn next(&mut self) -> Result<Admission, Status> {
        let stream = self.stream.as_mut().expect("connected");
        let next = self.runtime.block_on(stream.message())?;
        next.ok_or_else(|| Status::ok("the end"))
    }

    /// Cancels the stream, and keeps the connection.
    pub(crate) fn cancel_stream(&mut self) {
        self.stream = None;
    }

    pub(crate) fn admit(&mut self, admission: &Admission) {
        self.resolve(&admission.admission_id, None);
    }

    pub(crate) fn deny(&mut self, admission_id: &str, message: &str) {
        let status = rpc::Status {
            code: 9,
            message: message.into(),
            ..rpc::Status::default()
        };
        self.resolve(admission_id, Some(status));
    }

    pub(crate) fn resolve(&mut self, admission_id: &str, status: Option<rpc::Status>) {
        let request = self.handshake.request(ResolveAdmissionRequest {
            admission_id: admission_id.into(),
            status,
        });
        let resolved = self.admissions.resolve_admission(request);
        // An error means that the host has exited.
        if self.runtime.block_on(resolved).is_err() {
            std::process::exit(1);
        }
    }

    pub(crate) fn log(&mut self, severity: &str, message: &str) -> Result<(), Status> {
        let request = self.handshake.request(LogRequest {
            severity: severity.into(),
            message: message.into(),
        });
        self.runtime.block_on(self.host.log(request)).map(drop)
    }

    pub(crate) fn list_metadata(
        &mut self,
        request: ListMetadataRequest,
    ) -> Result<ListMetadataResponse, Status> {
        let request = self.handshake.request(request);
        let listed = self.host.list_metadata(request);
        self.runtime
            .block_on(listed)
            .map(tonic::Response::into_inner)
    }
}

/// Returns a request for all metadata of the instance.
pub(crate) fn list_request(admission: &Admission) -> ListMetadataRequest {
    ListMetadataRequest {
        service_url: admission.service_url.clone(),
        package: admission.package.clone(),
        instance: admission.instance.clone(),
        ..ListMetadataRequest::default()
    }
}

/// Waits for the end of stdin.
pub(crate) fn drain() {
    let mut rest = Vec::new();
    let _failed = io::stdin().lock().read_to_end(&mut rest);
    assert_eq!(rest, b"", "the host writes only a handshake");
}
