//! Metadata from a CIPD service, over pRPC: unary gRPC calls over HTTP/1.

mod client;
mod codec;
mod options;
mod retry;
mod token;

use std::fmt;
use std::time::Duration;

use admission_proto::{Code, ServiceUrl, Status, escape};
use tokio::time::{Instant, sleep, timeout_at};

use super::{ListMetadata, MetadataFuture, MetadataPage, Repository};
use client::Client;
use retry::{Failure, RetryBudget, backoff};
use token::{Token, TokenCache};

pub use options::{PrpcOptions, PrpcRepositoryError};
pub use token::TokenError;

/// The repository of a CIPD service. Caches no metadata.
///
/// Retries transient errors, such as a broken connection or an overloaded service, with
/// growing pauses until the deadline. All calls together have a limited number of retries
/// until one succeeds. Needs a tokio runtime with its I/O and time drivers enabled, as a
/// host has. Drop the future of a call to cancel it.
///
/// Serves metadata of one service: a request for another service fails with PERMISSION_DENIED.
/// A request without a service URL is accepted.
///
/// TLS trusts the root certificates of the system, or those that `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` name instead. Redirects are not followed. A token is sent over https or to
/// this machine only.
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
    client: Client,
    tokens: Option<TokenCache>,
    deadline: Duration,
    budget: RetryBudget,
}

impl PrpcRepository {
    /// Creates a repository. Does not connect.
    ///
    /// # Errors
    ///
    /// [`PrpcRepositoryError`] if an option is invalid.
    pub fn new(options: PrpcOptions) -> Result<Self, PrpcRepositoryError> {
        Ok(Self {
            client: Client::new(&options)?,
            tokens: options.tokens,
            deadline: options.deadline,
            budget: RetryBudget::new(),
        })
    }

    async fn list(&self, request: ListMetadata) -> Result<MetadataPage, Status> {
        let url = &self.client.url;
        let is_own = |other: ServiceUrl| other.is_same_service(url);
        if !request.service_url.is_empty() && !request.service_url.parse().is_ok_and(is_own) {
            let text = format!("this repository serves {url} only");
            return Err(Status::new(Code::PERMISSION_DENIED, text));
        }
        // For a digest of a wrong length, the service may report an internal error.
        request.pin()?;
        let request = codec::encode(request);
        let deadline = Instant::now() + self.deadline;
        let mut last_error = None;
        let mut failures = 0;
        let mut rejected_token = None;
        loop {
            let token = self.token(rejected_token.as_ref(), deadline).await?;
            let time_left = deadline.saturating_duration_since(Instant::now());
            let call = self.client.call(request.clone(), token.as_ref(), time_left);
            let Ok(result) = timeout_at(deadline, call).await else {
                return Err(self.deadline_exceeded(last_error));
            };
            let Failure {
                status,
                retry_after,
            } = match result {
                Ok(page) => {
                    self.budget.deposit();
                    return Ok(page);
                }
                Err(failure) => failure,
            };
            if status.code == Code::UNAUTHENTICATED && token.is_some() && rejected_token.is_none() {
                // The token may have expired early. A second token is not retried.
                rejected_token = token;
                last_error = Some(status);
                continue;
            }
            let Some(retry_after) = retry_after else {
                // The service is up.
                self.budget.deposit();
                return Err(status);
            };
            if !self.budget.withdraw() {
                return Err(status);
            }
            failures += 1;
            let pause = backoff(failures).max(retry_after);
            let (code, error) = (status.code, escape(&status.message));
            tracing::warn!(%url, %code, %error, ?pause, "the CIPD service failed, retrying");
            last_error = Some(status);
            if pause >= deadline.saturating_duration_since(Instant::now()) {
                return Err(self.deadline_exceeded(last_error));
            }
            sleep(pause).await;
        }
    }

    async fn token(
        &self,
        rejected: Option<&Token>,
        deadline: Instant,
    ) -> Result<Option<Token>, Status> {
        let Some(tokens) = &self.tokens else {
            return Ok(None);
        };
        let url = &self.client.url;
        match timeout_at(deadline, tokens.get(rejected)).await {
            Ok(Ok(token)) => Ok(Some(token)),
            Ok(Err(error)) => Err(Status::new(
                Code::UNAUTHENTICATED,
                format!("cannot get a token for the CIPD service {url}: {error}"),
            )),
            Err(_) => Err(Status::new(
                Code::DEADLINE_EXCEEDED,
                format!(
                    "there was no token for the CIPD service {url} within {:?}",
                    self.deadline
                ),
            )),
        }
    }

    fn deadline_exceeded(&self, last_error: Option<Status>) -> Status {
        let (url, deadline) = (&self.client.url, self.deadline);
        let mut text = format!("the CIPD service {url} did not answer within {deadline:?}");
        if let Some(Status { code, message, .. }) = last_error {
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
            .field("service_url", &self.client.url.to_string())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
