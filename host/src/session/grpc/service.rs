//! The gRPC services that plugins call.

use std::convert::Infallible;
use std::sync::Arc;

use admission_grpc::admissions_server::{self, Admissions, AdmissionsServer};
use admission_grpc::host_server::{self, Host, HostServer};
use admission_proto::LogLevel;
use admission_proto::wire::plugin::{
    ListAdmissionsRequest, ListMetadataRequest, ListMetadataResponse, LogRequest,
    ResolveAdmissionRequest,
};
use admission_proto::wire::{Message as _, rpc};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status};

use super::authentication::{Peer, PluginConnection};
use super::request::RequestBody;
use super::shared::{AdmissionStream, UnwrittenReply};

type HttpResponse = hyper::Response<Body>;
type HttpFuture = BoxFuture<'static, Result<HttpResponse, Infallible>>;

/// Serves a call. Rejects an unknown method first, then an unauthenticated call. Both need the
/// headers only, so the body is not read.
pub(super) fn call(peer: &Peer, request: hyper::Request<Incoming>) -> HttpFuture {
    let rejected = |status: Status| ready(Ok(status.into_http())).boxed();
    route(peer, request).unwrap_or_else(rejected)
}

fn route(peer: &Peer, request: hyper::Request<Incoming>) -> Result<HttpFuture, Status> {
    let service = Service::of_method(request.uri().path())?;
    let connection = peer.authenticate(request.headers())?;
    let request =
        request.map(|body| RequestBody::new(body, Arc::clone(&connection.session.request_memory)));
    // `RequestBody` limits the length of messages, with the error of the reference.
    let limit = usize::MAX;
    Ok(match service {
        Service::Admissions => AdmissionsServer::from_arc(connection)
            .max_decoding_message_size(limit)
            .call(request),
        Service::Host => HostServer::from_arc(connection)
            .max_decoding_message_size(limit)
            .call(request)
            .map(|response| response.map(count_until_read))
            .boxed(),
    })
}

#[derive(Debug)]
enum Service {
    Host,
    Admissions,
}

impl Service {
    /// Returns the service of a method that exists.
    fn of_method(path: &str) -> Result<Self, Status> {
        let (service, method) = path
            .strip_prefix('/')
            .and_then(|path| path.rsplit_once('/'))
            .ok_or_else(|| Status::unimplemented(format!("malformed method name: {path:?}")))?;
        match (service, method) {
            (host_server::SERVICE_NAME, "Log" | "ListMetadata") => Ok(Self::Host),
            (admissions_server::SERVICE_NAME, "ListAdmissions" | "ResolveAdmission") => {
                Ok(Self::Admissions)
            }
            (host_server::SERVICE_NAME | admissions_server::SERVICE_NAME, _) => {
                let text = format!("unknown method {method} for service {service}");
                Err(Status::unimplemented(text))
            }
            _ => Err(Status::unimplemented(format!("unknown service {service}"))),
        }
    }
}

/// Counts a reply with metadata as unwritten until its body is sent.
fn count_until_read(mut response: HttpResponse) -> HttpResponse {
    let Some(counted) = response.extensions_mut().remove::<Arc<UnwrittenReply>>() else {
        return response;
    };
    response.map(|body| {
        Body::new(body.map_err(move |error| {
            // Makes the body own the count.
            let _ = &counted;
            error
        }))
    })
}

#[tonic::async_trait]
impl Host for PluginConnection {
    async fn log(&self, request: Request<LogRequest>) -> Result<Response<()>, Status> {
        let LogRequest { severity, message } = request.into_inner();
        let level = LogLevel::from_wire(&severity);
        self.session.log(level, &message);
        Ok(Response::new(()))
    }

    async fn list_metadata(
        &self,
        request: Request<ListMetadataRequest>,
    ) -> Result<Response<ListMetadataResponse>, Status> {
        let reply = self.session.list_metadata(request.into_inner()).await;
        let (page, unwritten) = reply.map_err(to_wire)?;
        let mut response = Response::new(page);
        response.extensions_mut().insert(Arc::new(unwritten));
        Ok(response)
    }
}

#[tonic::async_trait]
impl Admissions for PluginConnection {
    type ListAdmissionsStream = AdmissionStream;

    async fn list_admissions(
        &self,
        request: Request<ListAdmissionsRequest>,
    ) -> Result<Response<AdmissionStream>, Status> {
        let ListAdmissionsRequest {
            protocol_version,
            plugin_version,
        } = request.into_inner();
        let stream = self
            .session
            .list_admissions(protocol_version, plugin_version)?;
        Ok(Response::new(stream))
    }

    async fn resolve_admission(
        &self,
        request: Request<ResolveAdmissionRequest>,
    ) -> Result<Response<()>, Status> {
        let ResolveAdmissionRequest {
            admission_id,
            status,
        } = request.into_inner();
        // The plugins of the reference admit without a status.
        let verdict = status.unwrap_or_default().into();
        self.session.resolve(&admission_id, verdict);
        Ok(Response::new(()))
    }
}

/// Converts the status of a failed metadata call, whose length is bounded by
/// [`listing::to_reply`](crate::session::listing::to_reply).
fn to_wire(status: admission_proto::Status) -> Status {
    let code = tonic::Code::from_i32(status.code.number());
    let message = status.message.clone();
    if status.details.is_empty() {
        return Status::new(code, message);
    }
    let details = rpc::Status::from(status).encode_to_vec();
    Status::with_details(code, message, details.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_method_is_named_in_its_error() {
        let message = |path| {
            let status = Service::of_method(path).expect_err("it does not exist");
            assert_eq!(status.code(), tonic::Code::Unimplemented);
            status.message().to_owned()
        };
        assert_eq!(message("/a.b/C"), "unknown service a.b");
        assert_eq!(
            message("/cipd.plugin.Host/List"),
            "unknown method List for service cipd.plugin.Host"
        );
        assert_eq!(message("Log"), "malformed method name: \"Log\"");
    }
}
