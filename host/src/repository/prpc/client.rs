//! One call to the service over HTTP.

use std::error::Error;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use admission_proto::{Code, ServiceUrl, Status};
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Response, redirect, retry};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use super::codec::{self, Head, MEDIA_TYPE};
use super::options::{PrpcOptions, PrpcRepositoryError};
use super::retry::Failure;
use super::token::Token;
use crate::repository::MetadataPage;

/// Time limit for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest text of an error, in bytes. The rest is not read.
const MAX_ERROR_SIZE: usize = 4096;

/// Path of the method that lists metadata.
const METHOD: &str = "prpc/cipd.Repository/ListMetadata";

/// Header with the largest response that the client accepts, in bytes.
const MAX_RESPONSE_SIZE: &str = "X-Prpc-Max-Response-Size";

/// Header with the time that the client will wait.
const TIMEOUT: &str = "X-Prpc-Grpc-Timeout";

/// A client of one service.
pub(super) struct Client {
    pub(super) url: ServiceUrl,
    max_response_size: usize,
    user_agent: String,
    proxies_of_environment: bool,
    root_certificates: Vec<CertificateDer<'static>>,
    /// Built by the first call: it loads all root certificates of the system.
    http: OnceLock<Result<reqwest::Client, Status>>,
}

impl Client {
    pub(super) fn new(options: &PrpcOptions) -> Result<Self, PrpcRepositoryError> {
        let url = options.service_url.parse::<ServiceUrl>()?;
        if options.tokens.is_some() && !url.is_https() && !url.is_loopback() {
            return Err(PrpcRepositoryError::TokensOverHttp(url));
        }
        let root_certificates = match &options.root_certificates {
            None => Vec::new(),
            Some(pem) => parse_certificates(pem)
                .map_err(|source| PrpcRepositoryError::RootCertificates { source })?,
        };
        Ok(Self {
            max_response_size: options.max_response_size,
            user_agent: options.user_agent.clone(),
            // A proxy could read the token, and resolves this name to another machine.
            proxies_of_environment: options.proxies_of_environment && !url.is_loopback(),
            root_certificates,
            http: OnceLock::new(),
            url,
        })
    }

    /// Makes one call. Dropping the future closes the connection.
    pub(super) async fn call(
        &self,
        request: Bytes,
        token: Option<&Token>,
        time_left: Duration,
    ) -> Result<MetadataPage, Failure> {
        let http = self.http.get_or_init(|| self.build());
        let http = http.as_ref().map_err(|status| Failure {
            status: status.clone(),
            retry_after: None,
        })?;
        let mut post = http
            .post(format!("{}/{METHOD}", self.url))
            .header(CONTENT_TYPE, MEDIA_TYPE)
            .header(ACCEPT, MEDIA_TYPE)
            .header(MAX_RESPONSE_SIZE, self.max_response_size)
            .header(TIMEOUT, codec::timeout(time_left))
            .body(request);
        if let Some(token) = token {
            post = post.header(AUTHORIZATION, token);
        }
        let mut response = post.send().await.map_err(|error| self.broken(&error))?;
        let head = Head {
            http_status: response.status().as_u16(),
            headers: std::mem::take(response.headers_mut()),
        };
        let encoding = head.headers.get(CONTENT_ENCODING);
        // `reqwest` removes the header when it decompresses.
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            let service = self.service();
            let text = format!("{service} replied in an encoding that was not requested");
            return Err(Failure::permanent(Code::INTERNAL, text));
        }
        let body = self.read_body(response, head.is_page()).await?;
        head.decode(&body)
    }

    /// Reads a page, or the first part of the text of an error.
    ///
    /// The limits are on the decompressed body, which `reqwest` returns in pieces of a few KiB,
    /// so that a gzip bomb cannot fill memory.
    async fn read_body(&self, mut response: Response, is_page: bool) -> Result<Vec<u8>, Failure> {
        let limit = if is_page {
            self.max_response_size
        } else {
            MAX_ERROR_SIZE
        };
        if let Some(size) = response.content_length()
            && is_page
            && size > limit as u64
        {
            return Err(self.too_large(&format!(" {size}")));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.broken(&error))?
        {
            let room = limit - body.len();
            if chunk.len() <= room {
                body.extend_from_slice(&chunk);
            } else if is_page {
                return Err(self.too_large(""));
            } else {
                body.extend_from_slice(&chunk[..room]);
                body.extend_from_slice(b"...");
                break;
            }
        }
        Ok(body)
    }

    fn too_large(&self, size: &str) -> Failure {
        let limit = self.max_response_size;
        let text = format!("prpc: the response size{size} exceeds the client limit {limit}");
        Failure::permanent(Code::UNAVAILABLE, text)
    }

    /// Creates the failure of a call that got no complete response.
    fn broken(&self, error: &reqwest::Error) -> Failure {
        let service = self.service();
        let cause = root_cause(error);
        if error.is_builder() {
            // The host is not valid in a URL, such as `1.2.3.4.5`.
            let text = format!("cannot call {service}: {cause}; is the URL right?");
            return Failure::permanent(Code::UNAVAILABLE, text);
        }
        if !error.is_connect() {
            let text = format!("the connection to {service} broke: {cause}");
            return Failure::transient(Code::UNAVAILABLE, text);
        }
        if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            let text = format!(
                "cannot make a secure connection to {service}: {error}; check its URL and the root certificates"
            );
            return Failure::permanent(Code::UNAVAILABLE, text);
        }
        let suspects = if self.proxies_of_environment {
            "its URL, the network and the proxies of the environment"
        } else {
            "its URL and the network"
        };
        let text = format!("cannot reach {service}: {cause}; check {suspects}");
        Failure::transient(Code::UNAVAILABLE, text)
    }

    fn build(&self) -> Result<reqwest::Client, Status> {
        let unusable = |error: &(dyn Error + 'static), hint: &str| {
            let (service, cause) = (self.service(), root_cause(error));
            let text = format!("cannot prepare a connection to {service}: {cause}{hint}");
            Status::new(Code::UNAVAILABLE, text)
        };
        let hint = "; are root certificates installed, or named by SSL_CERT_FILE?";
        let tls = self.tls().map_err(|error| unusable(&error, hint))?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(&self.user_agent)
            // pRPC has no redirects. A redirect could lead to any server.
            .redirect(redirect::Policy::none())
            // `PrpcRepository` retries.
            .retry(retry::never())
            .connect_timeout(CONNECT_TIMEOUT);
        if !self.proxies_of_environment {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|error| unusable(&error, ""))
    }

    /// Builds a TLS configuration that does not depend on the defaults of this process.
    fn tls(&self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        if !self.url.is_https() {
            let roots = RootCertStore::empty();
            return Ok(config.with_root_certificates(roots).with_no_client_auth());
        }
        let roots = self.root_certificates.iter().cloned();
        let verifier = Verifier::new_with_extra_roots(roots, provider)?;
        Ok(config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth())
    }

    fn service(&self) -> String {
        format!("the CIPD service {}", self.url)
    }
}

fn parse_certificates(
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Box<dyn Error + Send + Sync>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if certificates.is_empty() {
        return Err("there is no PEM certificate".into());
    }
    // Reports an invalid certificate now, not in the first call.
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone())?;
    }
    Ok(certificates)
}

/// Returns the text of the innermost cause. The outer errors only name layers of the client.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

/// Iterates over an error and its causes. Includes the error inside an `io::Error`, which is
/// not its `source`.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        inner
            .map(|inner| inner as &(dyn Error + 'static))
            .or_else(|| error.source())
    })
}
