//! One request to the service and its response, over HTTP.

use std::error::Error;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use admission_proto::{Code, Status};
use bytes::Bytes;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, RETRY_AFTER,
};
use reqwest::{Client, Response, redirect, retry};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use super::body::{Body, Encoding, Fault};
use super::options::Proxies;
use super::response::{self, Head};
use super::retry::{Failure, Retry};
use super::service_url::ServiceUrl;
use super::tokens::Token;
use super::{MEDIA_TYPE, PrpcOptions, PrpcRepositoryError, oversize, request};
use crate::repository::MetadataPage;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes that are read of the text of an error, of which less is kept.
const MAX_ERROR_SIZE: usize = 64 << 10;

/// Says how large a response may be, in bytes.
const MAX_RESPONSE_SIZE: &str = "X-Prpc-Max-Response-Size";

/// Says how long the service has.
const TIMEOUT: &str = "X-Prpc-Grpc-Timeout";

/// The way to a service.
pub(super) struct Connection {
    url: ServiceUrl,
    max_response_size: usize,
    user_agent: String,
    proxies: Proxies,
    root_certificates: Vec<CertificateDer<'static>>,
    /// Made when it is first needed: it reads all root certificates of the system.
    client: OnceLock<Result<Client, Status>>,
}

impl Connection {
    /// Takes what concerns it of the options, and connects to nothing.
    pub(super) fn new(options: &PrpcOptions) -> Result<Self, PrpcRepositoryError> {
        let url = ServiceUrl::parse(&options.service_url)?;
        if options.tokens.is_some() && !url.is_private() {
            return Err(PrpcRepositoryError::TokensOverHttp(url.to_string()));
        }
        Ok(Self {
            max_response_size: options.max_response_size,
            user_agent: options.user_agent.clone(),
            // A proxy could read along, and would look for another machine under this name.
            proxies: if url.is_loopback() {
                Proxies::Never
            } else {
                options.proxies
            },
            root_certificates: parse_certificates(&options.root_certificates)?,
            client: OnceLock::new(),
            url,
        })
    }

    pub(super) fn url(&self) -> &ServiceUrl {
        &self.url
    }

    /// Asks once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(super) async fn ask(
        &self,
        request: Bytes,
        token: Option<&Token>,
        left: Duration,
    ) -> Result<MetadataPage, Failure> {
        let client = self.client.get_or_init(|| self.make_client());
        let client = client.as_ref().map_err(|status| Failure {
            status: status.clone(),
            retry: Retry::Never,
        })?;
        let mut post = client
            .post(self.url.method())
            .header(CONTENT_TYPE, MEDIA_TYPE)
            .header(ACCEPT, MEDIA_TYPE)
            .header(ACCEPT_ENCODING, "gzip")
            .header(MAX_RESPONSE_SIZE, self.max_response_size)
            .header(TIMEOUT, request::timeout(left))
            .body(request);
        if let Some(token) = token {
            post = post.header(AUTHORIZATION, &token.header);
        }
        let response = post.send().await.map_err(|error| self.broken(&error))?;
        let head = head(&response);
        let body = self.read(&head, response).await?;
        head.decode(&body)
    }

    /// Reads the body, or of an error's as much as is of use.
    async fn read(&self, head: &Head, mut response: Response) -> Result<Vec<u8>, Failure> {
        let limit = if head.promises_answer() {
            self.max_response_size
        } else {
            MAX_ERROR_SIZE
        };
        let encoding = self.encoding(response.headers())?;
        if head.promises_answer()
            && encoding == Encoding::Plain
            && let Some(size) = response.content_length()
            && size > limit as u64
        {
            return Err(self.too_large(Some(size)));
        }
        let mut body = Body::new(encoding, limit);
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.broken(&error))?
        {
            match body.push(&chunk) {
                Ok(()) => {}
                Err(Fault::TooLarge) if !head.promises_answer() => return Ok(body.beginning()),
                Err(fault) => return Err(self.unreadable(&fault)),
            }
        }
        body.finish().map_err(|fault| self.unreadable(&fault))
    }

    fn encoding(&self, headers: &HeaderMap) -> Result<Encoding, Failure> {
        let Some(given) = headers.get(CONTENT_ENCODING) else {
            return Ok(Encoding::Plain);
        };
        match given.as_bytes().to_ascii_lowercase().as_slice() {
            b"identity" => Ok(Encoding::Plain),
            b"gzip" => Ok(Encoding::Gzip),
            _ => {
                let text = format!(
                    "{} answered in an encoding that it was not asked for",
                    self.service()
                );
                Err(Failure::lasting(Code::INTERNAL, text))
            }
        }
    }

    /// Tells of an exchange that did not come to its end.
    fn broken(&self, error: &reqwest::Error) -> Failure {
        let service = self.service();
        let cause = innermost(error);
        if error.is_connect()
            && let Some(error) = find_in::<rustls::Error>(error)
        {
            let text = format!(
                "cannot make a secure connection to {service}: {error}; is the URL right, and are its root certificates known here?"
            );
            return Failure::lasting(Code::UNAVAILABLE, text);
        }
        let text = if error.is_connect() {
            let suspects = match self.proxies {
                Proxies::Never => "its URL and the network",
                Proxies::OfEnvironment => "its URL, the network and the proxies of the environment",
            };
            format!("cannot reach {service}: {cause}; check {suspects}")
        } else {
            format!("the connection to {service} broke: {cause}")
        };
        Failure {
            status: Status::new(Code::UNAVAILABLE, text),
            retry: Retry::Later,
        }
    }

    fn unreadable(&self, fault: &Fault) -> Failure {
        match fault {
            Fault::TooLarge => self.too_large(None),
            // Bytes that were lost or changed on the way.
            Fault::Corrupt(error) => Failure {
                status: Status::new(
                    Code::UNAVAILABLE,
                    format!(
                        "{} sent a response that is damaged: {error}",
                        self.service()
                    ),
                ),
                retry: Retry::Later,
            },
        }
    }

    fn too_large(&self, size: Option<u64>) -> Failure {
        Failure {
            status: oversize::status(size, self.max_response_size),
            retry: Retry::Never,
        }
    }

    fn make_client(&self) -> Result<Client, Status> {
        let unusable = |error: &(dyn Error + 'static), hint: &str| {
            let (service, cause) = (self.service(), innermost(error));
            let text = format!("cannot prepare a connection to {service}: {cause}{hint}");
            Status::new(Code::UNAVAILABLE, text)
        };
        let hint = "; are root certificates installed, or named by SSL_CERT_FILE?";
        let tls = self.tls().map_err(|error| unusable(&error, hint))?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(&self.user_agent)
            // A redirect could lead anywhere, and a method of pRPC has none.
            .redirect(redirect::Policy::none())
            // Retries are counted and paced above.
            .retry(retry::never())
            .connect_timeout(CONNECT_TIMEOUT);
        if self.proxies == Proxies::Never {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|error| unusable(&error, ""))
    }

    /// Returns how to make connections secure; the process's own choices stay its own.
    fn tls(&self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        if !self.url.is_https() {
            let nobody = RootCertStore::empty();
            return Ok(config.with_root_certificates(nobody).with_no_client_auth());
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

fn head(response: &Response) -> Head {
    let headers = response.headers();
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let get = |name: &str| headers.get(name).map(|value| text(value.as_bytes()));
    let all = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values.map(|value| text(value.as_bytes())).collect()
    };
    // HTTP has it that a header which comes twice is one with both values.
    let codes = all(response::CODE);
    Head {
        http_status: response.status().as_u16(),
        code: (!codes.is_empty()).then(|| codes.join(", ")),
        content_type: get(CONTENT_TYPE.as_str()).unwrap_or_default(),
        details: all(response::DETAILS),
        retry_after: get(RETRY_AFTER.as_str())
            .and_then(|value| response::parse_retry_after(&value)),
    }
}

fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PrpcRepositoryError> {
    fn refuse(error: impl Error + Send + Sync + 'static) -> PrpcRepositoryError {
        PrpcRepositoryError::RootCertificates {
            source: Box::new(error),
        }
    }
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(refuse)?;
    // Finds out now, and not with the first call, that one is none.
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(refuse)?;
    }
    if certificates.is_empty() && !pem.is_empty() {
        return Err(PrpcRepositoryError::NoRootCertificate);
    }
    Ok(certificates)
}

/// Returns the text of the cause of all causes: what stands around it names layers.
fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

fn find_in<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Goes through an error and its causes, also those that an `io::Error` wraps, which it
/// does not name as its source.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        }
    })
}
