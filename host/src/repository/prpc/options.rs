//! What a repository is made from, and why it cannot be.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use super::tokens::{TokenError, TokenSource};

/// How long a call may take, with all its retries.
const DEADLINE: Duration = Duration::from_secs(60);

/// Longest time that a call can be given: a day, which no sum of times overflows.
const LONGEST_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Largest response, in bytes: what the reference's client takes.
const MAX_RESPONSE_SIZE: usize = (32 << 20) - (32 << 10);

/// What a [`PrpcRepository`](super::PrpcRepository) is made from.
#[non_exhaustive]
pub struct PrpcOptions {
    pub(super) service_url: String,
    pub(super) tokens: Option<TokenSource>,
    pub(super) deadline: Duration,
    pub(super) max_response_size: usize,
    pub(super) user_agent: String,
    pub(super) proxies: Proxies,
    pub(super) root_certificates: Vec<u8>,
}

/// Whether proxies are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proxies {
    Never,
    OfEnvironment,
}

/// Why there is no repository.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrpcRepositoryError {
    /// The service's URL is none.
    #[error("not a URL: `{url}`")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The URL is not that of a service; without what may be a password.
    #[error(
        "`{0}` does not name a CIPD service: only scheme, host and port do, as in https://host.example"
    )]
    NotAService(String),
    /// Tokens are to be sent to a service that is neither reached over https nor on this
    /// machine.
    #[error("tokens would be readable on the way to {0}: use https")]
    TokensOverHttp(String),
    /// The root certificates cannot be read.
    #[error("cannot read the root certificates")]
    RootCertificates {
        /// What is wrong with them.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no root certificate where some are said to be.
    #[error("there are no certificates in what is given as root certificates")]
    NoRootCertificate,
}

impl PrpcOptions {
    /// Creates options for a service, such as <https://chrome-infra-packages.appspot.com>,
    /// that is asked anonymously.
    #[must_use]
    pub fn new(service_url: impl Into<String>) -> Self {
        Self {
            service_url: service_url.into(),
            tokens: None,
            deadline: DEADLINE,
            max_response_size: MAX_RESPONSE_SIZE,
            user_agent: concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies: Proxies::Never,
            root_certificates: Vec::new(),
        }
    }

    /// Sets where bearer tokens come from. The source is asked when a call needs a token
    /// and the last one is a minute old, or was refused, and its future is dropped when no
    /// call waits for it any more; white space around a token does not count.
    #[must_use]
    pub fn bearer_tokens<F, T>(mut self, source: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        self.tokens = Some(Box::new(move || Box::pin(source())));
        self
    }

    /// Sets how long a call may take with all its retries, a day at most; a minute unless
    /// this is called.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(LONGEST_DEADLINE);
        self
    }

    /// Sets the largest response that is taken, in bytes; 32 MiB without 32 KiB unless
    /// this is called, as in the reference.
    #[must_use]
    pub fn max_response_size(mut self, bytes: usize) -> Self {
        self.max_response_size = bytes.max(1);
        self
    }

    /// Sets what the service is told about the program that asks; for its logs.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// Goes through the proxies that the environment names in `HTTPS_PROXY` and its
    /// siblings. A service on this machine is always asked directly.
    #[must_use]
    pub fn proxies_of_environment(mut self) -> Self {
        self.proxies = Proxies::OfEnvironment;
        self
    }

    /// Adds root certificates, in PEM, to those that the system trusts.
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = pem.into();
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
            .field("proxies", &self.proxies)
            .finish_non_exhaustive()
    }
}
