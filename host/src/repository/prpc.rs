//! Metadata of the real service, asked over pRPC: gRPC's unary calls over HTTP/1.

mod body;
mod exchange;
mod html;
mod options;
mod oversize;
mod request;
mod response;
mod retry;
mod service_url;
mod tokens;

use std::fmt;
use std::time::Duration;

use admission_proto::{Code, Status, escape};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::{ListMetadata, MetadataFuture, MetadataPage, Repository};
use exchange::Connection;
use retry::{Budget, Failure};
use tokens::{Token, Tokens};

pub use options::{PrpcOptions, PrpcRepositoryError};
pub use tokens::TokenError;

/// The binary encoding, of requests and of responses.
const MEDIA_TYPE: &str = "application/prpc; encoding=binary";

/// The repository of a CIPD service, which is asked anew for each listing.
///
/// What may pass, such as a connection that breaks or a service that is overloaded, is
/// tried again with growing pauses until the deadline; while nothing succeeds, all calls
/// together have a limited number of retries. Needs a tokio runtime with its I/O and time
/// drivers on, as a host has. Drop the future of a call to cancel it.
///
/// It answers for its own service: a request that names another one is refused with
/// PERMISSION_DENIED, and one that names none is for its own.
///
/// TLS trusts what the system trusts, or what `SSL_CERT_FILE` and `SSL_CERT_DIR` name in
/// its place. A redirect is not followed. A token is sent over
/// https, or to this machine, only.
///
/// ```no_run
/// # fn example() -> Result<(), admission_host::PrpcRepositoryError> {
/// use admission_host::{PrpcOptions, PrpcRepository};
///
/// let service = PrpcOptions::new("https://chrome-infra-packages.appspot.com");
/// let repository = PrpcRepository::new(service)?;
/// # Ok(())
/// # }
/// ```
pub struct PrpcRepository {
    connection: Connection,
    tokens: Option<Tokens>,
    deadline: Duration,
    budget: Budget,
}

impl PrpcRepository {
    /// Creates a repository, and connects to nothing.
    ///
    /// # Errors
    ///
    /// [`PrpcRepositoryError`] if the options make no sense.
    pub fn new(options: PrpcOptions) -> Result<Self, PrpcRepositoryError> {
        Ok(Self {
            connection: Connection::new(&options)?,
            tokens: options.tokens.map(Tokens::new),
            deadline: options.deadline,
            budget: Budget::new(),
        })
    }

    async fn list(&self, request: ListMetadata) -> Result<MetadataPage, Status> {
        let service = self.connection.url();
        if !request.service_url.is_empty() && !service.is(&request.service_url) {
            let text = format!("this repository is that of {service} alone");
            return Err(Status::new(Code::PERMISSION_DENIED, text));
        }
        // The service may stumble over a digest of a wrong length rather than refuse it.
        request.pin()?;
        let deadline = Instant::now() + self.deadline;
        self.ask_until(deadline, request::encode(request)).await
    }

    /// Asks again and again, until there is no time to ask once more.
    async fn ask_until(&self, deadline: Instant, request: Bytes) -> Result<MetadataPage, Status> {
        let mut last = None;
        let mut failures = 0;
        let mut refused = false;
        loop {
            let token = self.token(deadline).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            let asking = self.connection.ask(request.clone(), token.as_ref(), left);
            let Ok(asked) = timeout_at(deadline, asking).await else {
                return Err(self.too_late(last));
            };
            let Failure { status, retry } = match asked {
                Ok(page) => {
                    self.budget.earn();
                    return Ok(page);
                }
                Err(failure) => failure,
            };
            if status.code == Code::UNAUTHENTICATED
                && let (Some(tokens), Some(token), false) = (&self.tokens, &token, refused)
            {
                // It may have ended before its time. A second one has not.
                refused = true;
                tokens.refused(token);
                last = Some(status);
                continue;
            }
            failures += 1;
            let Some(pause) = retry.pause(failures, rand::random()) else {
                // A service that says no is up.
                self.budget.earn();
                return Err(status);
            };
            if !self.budget.take() {
                return Err(status);
            }
            let url = self.connection.url();
            let (code, error) = (status.code, escape(&status.message));
            tracing::warn!(%url, %code, %error, ?pause, "the CIPD service failed, and is asked again");
            last = Some(status);
            if pause >= deadline.saturating_duration_since(Instant::now()) {
                return Err(self.too_late(last));
            }
            sleep(pause).await;
        }
    }

    async fn token(&self, deadline: Instant) -> Result<Option<Token>, Status> {
        let Some(tokens) = &self.tokens else {
            return Ok(None);
        };
        let url = self.connection.url();
        match timeout_at(deadline, tokens.get()).await {
            Ok(Ok(token)) => Ok(Some(token)),
            Ok(Err(error)) => {
                let text = format!("cannot get a token for the CIPD service {url}: {error}");
                Err(Status::new(Code::UNAUTHENTICATED, text))
            }
            Err(_) => {
                let deadline = self.deadline;
                let text =
                    format!("there was no token for the CIPD service {url} within {deadline:?}");
                Err(Status::new(Code::DEADLINE_EXCEEDED, text))
            }
        }
    }

    fn too_late(&self, last: Option<Status>) -> Status {
        let url = self.connection.url();
        let deadline = self.deadline;
        let mut text = format!("the CIPD service {url} did not answer within {deadline:?}");
        if let Some(Status { code, message, .. }) = last {
            text += &format!("; the last error was {code}: {message}");
        }
        Status::new(Code::DEADLINE_EXCEEDED, text)
    }
}

impl Repository for PrpcRepository {
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_> {
        Box::pin(self.list(request))
    }
}

impl fmt::Debug for PrpcRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrpcRepository")
            .field("service_url", &self.connection.url().to_string())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
