//! The services that a plugin calls, for one plugin.

use std::sync::Arc;

use admission_grpc::admissions_server;
use admission_grpc::host_server;
use admission_proto::wire::Message as _;
use admission_proto::wire::plugin::{
    ListAdmissionsRequest, ListMetadataRequest, ListMetadataResponse, LogRequest,
    ResolveAdmissionRequest,
};
use tonic::{Request, Response, Status};

use super::line::{Admissions, Connected, Unwritten};
use super::status;
use crate::log::LogLevel;
use crate::session::{MetadataCall, listing};

/// What a plugin calls on one connection.
pub(super) struct Desk(pub(super) Connected);

/// Travels with a page until the plugin has taken it.
pub(super) type InAnswer = Arc<Unwritten>;

#[tonic::async_trait]
impl host_server::Host for Desk {
    async fn log(&self, request: Request<LogRequest>) -> Result<Response<()>, Status> {
        let LogRequest { severity, message } = request.into_inner();
        self.0.log(LogLevel::from_severity(&severity), &message);
        Ok(Response::new(()))
    }

    async fn list_metadata(
        &self,
        request: Request<ListMetadataRequest>,
    ) -> Result<Response<ListMetadataResponse>, Status> {
        let mut request = request.into_inner();
        let size = size_of::<MetadataCall>() + request.encoded_len();
        let call = MetadataCall {
            call_id: 0,
            admission_id: None,
            service_url: std::mem::take(&mut request.service_url),
            request: listing::asked(request),
        };
        let call = self.0.call(call, size).map_err(status::to_wire)?;
        let (page, unwritten) = call.answer().await.map_err(status::to_wire)?;
        let mut response = Response::new(page);
        response.extensions_mut().insert(InAnswer::new(unwritten));
        Ok(response)
    }
}

#[tonic::async_trait]
impl admissions_server::Admissions for Desk {
    type ListAdmissionsStream = Admissions;

    async fn list_admissions(
        &self,
        request: Request<ListAdmissionsRequest>,
    ) -> Result<Response<Admissions>, Status> {
        let ListAdmissionsRequest {
            protocol_version,
            plugin_version,
        } = request.into_inner();
        let admissions = self.0.list_admissions(protocol_version, plugin_version)?;
        Ok(Response::new(admissions))
    }

    async fn resolve_admission(
        &self,
        request: Request<ResolveAdmissionRequest>,
    ) -> Result<Response<()>, Status> {
        let ResolveAdmissionRequest {
            admission_id,
            status,
        } = request.into_inner();
        // The reference's plugins admit by saying nothing.
        let verdict = status.unwrap_or_default().into();
        self.0.resolve(&admission_id, verdict);
        Ok(Response::new(()))
    }
}
