//! Where calls come in: refused by their headers, before a body is read, or served.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use admission_grpc::admissions_server::AdmissionsServer;
use admission_grpc::host_server::HostServer;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper::{HeaderMap, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;

use super::incoming;
use super::services::{Desk, InAnswer};
use super::tickets::TicketHash;
use super::visitor::Visitor;

const HOST: &str = "cipd.plugin.Host";
const ADMISSIONS: &str = "cipd.plugin.Admissions";

/// Serves the calls that come in on one connection.
pub(super) struct Gate(Arc<Visitor>);

type Served = BoxFuture<'static, Result<Response<Body>, Infallible>>;

impl Gate {
    pub(super) fn new(visitor: Arc<Visitor>) -> Self {
        Self(visitor)
    }

    /// Returns what serves the plugin that calls.
    fn desk(&self, headers: &HeaderMap) -> Result<Arc<Desk>, Status> {
        // Of several tickets the first counts.
        let Some(ticket) = headers.get(admission_grpc::TICKET) else {
            return Err(Status::unauthenticated("no ticket in the request"));
        };
        self.0.introduce(TicketHash::of(ticket.as_bytes()))
    }
}

impl Service<Request<Incoming>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Served;

    fn call(&self, request: Request<Incoming>) -> Served {
        let method = match Method::named(request.uri().path()) {
            Ok(method) => method,
            Err(status) => return refused(status),
        };
        let desk = match self.desk(request.headers()) {
            Ok(desk) => desk,
            Err(status) => return refused(status),
        };
        // It looks at the length of a message before tonic does.
        let limit = usize::MAX;
        let request = request.map(|body| incoming::Request::new(body, Arc::clone(&desk)));
        match method {
            Method::Admissions => AdmissionsServer::from_arc(desk)
                .max_decoding_message_size(limit)
                .call(request),
            Method::Host => HostServer::from_arc(desk)
                .max_decoding_message_size(limit)
                .call(request)
                .map(|response| response.map(counted))
                .boxed(),
        }
    }
}

/// A method that exists, by its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Host,
    Admissions,
}

impl Method {
    fn named(path: &str) -> Result<Self, Status> {
        let (service, method) = path
            .strip_prefix('/')
            .and_then(|path| path.rsplit_once('/'))
            .ok_or_else(|| Status::unimplemented(format!("malformed method name: {path:?}")))?;
        match (service, method) {
            (HOST, "Log" | "ListMetadata") => Ok(Self::Host),
            (ADMISSIONS, "ListAdmissions" | "ResolveAdmission") => Ok(Self::Admissions),
            (HOST | ADMISSIONS, _) => Err(Status::unimplemented(format!(
                "unknown method {method} for service {service}"
            ))),
            _ => Err(Status::unimplemented(format!("unknown service {service}"))),
        }
    }
}

fn refused(status: Status) -> Served {
    ready(Ok(status.into_http())).boxed()
}

/// Counts an answer as not written until the plugin has taken it, if it is to be counted.
fn counted(mut response: Response<Body>) -> Response<Body> {
    match response.extensions_mut().remove::<InAnswer>() {
        Some(unwritten) => response.map(|body| {
            Body::new(Counted {
                body,
                _unwritten: unwritten,
            })
        }),
        None => response,
    }
}

/// The body of an answer that is counted while it is there.
struct Counted {
    body: Body,
    _unwritten: InAnswer,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let message = |path| {
            let status = Method::named(path).expect_err("it is not there");
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
