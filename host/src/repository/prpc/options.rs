//! Options of a [`PrpcRepository`](super::PrpcRepository), and their errors.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use admission_proto::{ServiceUrl, ServiceUrlError};

use super::token::{TokenCache, TokenError};

/// Default time limit of a call with all its retries.
const DEADLINE: Duration = Duration::from_secs(60);

/// Longest time limit of a call: a day, so that adding it to the current time cannot overflow.
pub(super) const MAX_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Default size limit of a response in bytes, that of the reference's client.
const MAX_RESPONSE_SIZE: usize = (32 << 20) - (32 << 10);

/// Options of a [`PrpcRepository`](super::PrpcRepository).
#[non_exhaustive]
pub struct PrpcOptions {
    pub(super) service_url: String,
    pub(super) tokens: Option<TokenCache>,
    pub(super) deadline: Duration,
    pub(super) max_response_size: usize,
    pub(super) user_agent: String,
    pub(super) proxies_of_environment: bool,
    pub(super) root_certificates: Option<Vec<u8>>,
}

/// An option of a [`PrpcRepository`](super::PrpcRepository) that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrpcRepositoryError {
    /// The service URL is invalid.
    #[error(transparent)]
    ServiceUrl(#[from] ServiceUrlError),
    /// Tokens would be sent over http to another machine.
    #[error("tokens must not be sent to {0} unencrypted: use https")]
    TokensOverHttp(ServiceUrl),
    /// The root certificates cannot be parsed.
    #[error("cannot read the root certificates")]
    RootCertificates {
        /// The error of the parser.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl PrpcOptions {
    /// Creates options for anonymous access to a service, such as
    /// <https://chrome-infra-packages.appspot.com>.
    #[must_use]
    pub fn new(service_url: impl Into<String>) -> Self {
        Self {
            service_url: service_url.into(),
            tokens: None,
            deadline: DEADLINE,
            max_response_size: MAX_RESPONSE_SIZE,
            user_agent: concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies_of_environment: false,
            root_certificates: None,
        }
    }

    /// Authenticates with bearer tokens from `source`.
    ///
    /// A call that needs a token calls `source` if the last token is a minute old or the service
    /// rejected it. Concurrent calls wait for the same token or error. If the call that started
    /// the future of `source` is dropped, so is the future, and a waiting call starts another.
    /// White space around a token is ignored.
    #[must_use]
    pub fn bearer_tokens<F, T>(mut self, source: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        self.tokens = Some(TokenCache::new(move || Box::pin(source())));
        self
    }

    /// Sets the time limit of a call with all its retries: 60 seconds by default, a day at
    /// most.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(MAX_DEADLINE);
        self
    }

    /// Sets the size limit of a decompressed response in bytes: 32 MiB minus 32 KiB by
    /// default, as in the reference.
    #[must_use]
    pub fn max_response_size(mut self, bytes: usize) -> Self {
        self.max_response_size = bytes.max(1);
        self
    }

    /// Sets the `User-Agent` header, which the service logs.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// Uses the proxies that `HTTPS_PROXY` and related environment variables name. A service
    /// on this machine is always connected to directly.
    #[must_use]
    pub fn proxies_of_environment(mut self) -> Self {
        self.proxies_of_environment = true;
        self
    }

    /// Adds root certificates in PEM to those that the system trusts.
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }
}

impl fmt::Debug for PrpcOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrpcOptions")
            .field("service_url", &self.service_url)
            .field("deadline", &self.deadline)
            .field("max_response_size", &self.max_response_size)
            .field("user_agent", &self.user_agent)
            .field("proxies_of_environment", &self.proxies_of_environment)
            .finish_non_exhaustive()
    }
}
