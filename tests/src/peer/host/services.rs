//! The gRPC services of the host.

use std::sync::Arc;

use admission_grpc::TICKET;
use admission_grpc::admissions_server::Admissions;
use admission_grpc::host_server::Host;
use admission_proto::wire::plugin::{
    Admission, ListAdmissionsRequest, ListMetadataRequest, ListMetadataResponse, LogRequest,
    ResolveAdmissionRequest,
};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use super::{Event, PluginState, Plugins, SERVICE_URL, lock};

#[derive(Clone)]
pub(super) struct Services {
    plugins: Plugins,
}

impl Services {
    pub(super) fn new(plugins: Plugins) -> Self {
        Self { plugins }
    }

    /// Authenticates a call. The first of several tickets counts.
    fn authenticate(&self, metadata: &MetadataMap) -> Result<Arc<PluginState>, Status> {
        let ticket = metadata
            .get(TICKET)
            .ok_or_else(|| Status::unauthenticated("no ticket in the request"))?;
        let plugin = ticket
            .to_str()
            .ok()
            .and_then(|ticket| lock(&self.plugins).get(ticket).cloned());
        plugin.ok_or_else(|| Status::permission_denied("invalid ticket in the request"))
    }
}

impl PluginState {
    async fn report(&self, event: Event) {
        // An error means that the test has dropped the plugin.
        let _ = self.events.send(event).await;
    }
}

#[tonic::async_trait]
impl Host for Services {
    async fn log(&self, request: Request<LogRequest>) -> Result<Response<()>, Status> {
        let plugin = self.authenticate(request.metadata())?;
        plugin.report(Event::Logged(request.into_inner())).await;
        Ok(Response::new(()))
    }

    async fn list_metadata(
        &self,
        request: Request<ListMetadataRequest>,
    ) -> Result<Response<ListMetadataResponse>, Status> {
        let plugin = self.authenticate(request.metadata())?;
        let request = request.into_inner();
        plugin.report(Event::Listed(request.clone())).await;
        if request.service_url != SERVICE_URL {
            return Err(Status::permission_denied(format!(
                "can query only the CIPD repository the client is using ({SERVICE_URL:?})"
            )));
        }
        (plugin.behaviour.metadata)(request)
            .await
            .map(Response::new)
    }
}

#[tonic::async_trait]
impl Admissions for Services {
    type ListAdmissionsStream = BoxStream<'static, Result<Admission, Status>>;

    async fn list_admissions(
        &self,
        request: Request<ListAdmissionsRequest>,
    ) -> Result<Response<Self::ListAdmissionsStream>, Status> {
        let plugin = self.authenticate(request.metadata())?;
        let request = request.into_inner();
        let taken = lock(&plugin.admissions).take();
        let Some(mut admissions) = taken else {
            plugin.report(Event::AskedAgain).await;
            return Err(Status::failed_precondition("already called ListAdmissions"));
        };
        let version = request.protocol_version;
        plugin.report(Event::Connected(request)).await;
        if version != 1 {
            let message = format!("unknown protocol version {version}: expecting 1");
            return Err(Status::failed_precondition(message));
        }
        // The reference sends the response headers with the first admission.
        let Some(first) = next(&mut admissions).await else {
            return Ok(Response::new(stream::empty().boxed()));
        };
        let first = first?;
        let rest = stream::unfold(admissions, async |mut admissions| {
            let next = next(&mut admissions).await?;
            Some((next, admissions))
        });
        let all = stream::once(async { Ok(first) }).chain(rest);
        Ok(Response::new(all.boxed()))
    }

    async fn resolve_admission(
        &self,
        request: Request<ResolveAdmissionRequest>,
    ) -> Result<Response<()>, Status> {
        let plugin = self.authenticate(request.metadata())?;
        plugin.report(Event::Resolved(request.into_inner())).await;
        plugin.behaviour.verdicts.clone().map(Response::new)
    }
}

/// Waits for the next admission, or for the status with which the test ends the stream.
async fn next(
    admissions: &mut mpsc::Receiver<Result<Admission, Status>>,
) -> Option<Result<Admission, Status>> {
    admissions
        .recv()
        .await
        .filter(|next| !matches!(next, Err(status) if status.code() == Code::Ok))
}
