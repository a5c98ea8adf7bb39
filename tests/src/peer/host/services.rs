//! The two services, for all plugins of a host.

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

use super::{Desk, Desks, Event, SERVICE_URL, lock};

#[derive(Clone)]
pub(super) struct Services {
    desks: Desks,
}

impl Services {
    pub(super) fn new(desks: Desks) -> Self {
        Self { desks }
    }

    /// Checks the ticket of a call; of several the first counts.
    fn desk(&self, metadata: &MetadataMap) -> Result<Arc<Desk>, Status> {
        let ticket = metadata
            .get(TICKET)
            .ok_or_else(|| Status::unauthenticated("no ticket in the request"))?;
        let desk = ticket
            .to_str()
            .ok()
            .and_then(|ticket| lock(&self.desks).get(ticket).cloned());
        desk.ok_or_else(|| Status::permission_denied("invalid ticket in the request"))
    }
}

impl Desk {
    async fn tell(&self, event: Event) {
        // A test that hears no more has seen what it wanted.
        let _ = self.events.send(event).await;
    }
}

#[tonic::async_trait]
impl Host for Services {
    async fn log(&self, request: Request<LogRequest>) -> Result<Response<()>, Status> {
        let desk = self.desk(request.metadata())?;
        desk.tell(Event::Logged(request.into_inner())).await;
        Ok(Response::new(()))
    }

    async fn list_metadata(
        &self,
        request: Request<ListMetadataRequest>,
    ) -> Result<Response<ListMetadataResponse>, Status> {
        let desk = self.desk(request.metadata())?;
        let request = request.into_inner();
        desk.tell(Event::Listed(request.clone())).await;
        if request.service_url != SERVICE_URL {
            return Err(Status::permission_denied(format!(
                "can query only the CIPD repository the client is using ({SERVICE_URL:?})"
            )));
        }
        (desk.behaviour.metadata)(request).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl Admissions for Services {
    type ListAdmissionsStream = BoxStream<'static, Result<Admission, Status>>;

    async fn list_admissions(
        &self,
        request: Request<ListAdmissionsRequest>,
    ) -> Result<Response<Self::ListAdmissionsStream>, Status> {
        let desk = self.desk(request.metadata())?;
        let request = request.into_inner();
        let taken = lock(&desk.admissions).take();
        let Some(mut admissions) = taken else {
            desk.tell(Event::AskedAgain).await;
            return Err(Status::failed_precondition("already called ListAdmissions"));
        };
        let version = request.protocol_version;
        desk.tell(Event::Connected(request)).await;
        if version != 1 {
            let message = format!("unknown protocol version {version}: expecting 1");
            return Err(Status::failed_precondition(message));
        }
        // The reference sends the head of its response with the first admission only.
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
        let desk = self.desk(request.metadata())?;
        desk.tell(Event::Resolved(request.into_inner())).await;
        desk.behaviour.verdicts.clone().map(Response::new)
    }
}

/// Waits for the next admission, or the end of the stream that its test wants.
async fn next(
    admissions: &mut mpsc::Receiver<Result<Admission, Status>>,
) -> Option<Result<Admission, Status>> {
    admissions
        .recv()
        .await
        .filter(|next| !matches!(next, Err(status) if status.code() == Code::Ok))
}
