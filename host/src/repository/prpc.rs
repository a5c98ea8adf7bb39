//! Metadata from a CIPD service, over pRPC: unary gRPC calls over HTTP/1.

mod client;
mod codec;
mod options;
mod retry;
mod token;

use std::fmt;
use std::time::Duration;

use admission_proto::{Code, ServiceUrl, Status};

use super::{ListMetadata, MetadataFuture, MetadataPage, Repository};
use client::Client;
use retry::RetryBudget;
use token::TokenCache;

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
        self.call_with_retries(codec::encode(request)).await
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
