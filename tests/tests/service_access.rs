//! Tokens and certificates of `PrpcRepository`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use conformance::repositories::entries;
use conformance::service::{Answer, FakeService, Request, Response};
use conformance::{
    Code, ListMetadata, MetadataPage, PrpcOptions, PrpcRepository, Repository as _, Status,
    TokenError, guarded, pin,
};
use futures_util::future::join_all;
use rcgen::CertifiedKey;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

async fn list(repository: &PrpcRepository) -> Result<MetadataPage, Status> {
    let mut request = ListMetadata::default();
    request.package = "a/b".into();
    request.instance = pin("a/b").instance().object_ref();
    repository.list_metadata(request).await
}

fn repository(options: PrpcOptions) -> PrpcRepository {
    PrpcRepository::new(options).expect("a repository")
}

/// Returns a source of the tokens `token-1`, `token-2` and so on.
fn numbered_tokens() -> impl Fn() -> std::future::Ready<Result<String, TokenError>> {
    let tokens = AtomicUsize::new(0);
    move || {
        let number = tokens.fetch_add(1, Ordering::SeqCst) + 1;
        std::future::ready(Ok(format!("token-{number}\n")))
    }
}

fn tokens_seen(service: &FakeService) -> Vec<String> {
    let requests = service.requests();
    let tokens = requests
        .iter()
        .map(|request| request.header("authorization"));
    tokens
        .map(|token| token.unwrap_or("none").to_owned())
        .collect()
}

fn page() -> Response {
    Response::page(entries(1, 1))
}

/// Rejects the first token and accepts any other.
fn reject_first_token(_: usize, request: &Request) -> Answer {
    match request.header("authorization") {
        Some("Bearer token-1") | None => {
            Response::error(401, Code::UNAUTHENTICATED, "invalid token").into()
        }
        _ => page().into(),
    }
}

#[tokio::test]
async fn concurrent_calls_share_a_token() {
    guarded(async {
        let service = FakeService::start(|_, _| page().into());
        let repository =
            repository(PrpcOptions::new(service.url()).bearer_tokens(numbered_tokens()));
        for result in join_all((0..5).map(|_| list(&repository))).await {
            result.expect("a page");
        }
        assert_eq!(tokens_seen(&service), ["Bearer token-1"; 5]);
    })
    .await;
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once() {
    guarded(async {
        let service = FakeService::start(reject_first_token);
        let options = PrpcOptions::new(service.url()).bearer_tokens(numbered_tokens());
        list(&repository(options)).await.expect("a page");
        assert_eq!(tokens_seen(&service), ["Bearer token-1", "Bearer token-2"]);

        let service = FakeService::start(|_, _| {
            Response::error(401, Code::UNAUTHENTICATED, "invalid token").into()
        });
        let options = PrpcOptions::new(service.url()).bearer_tokens(numbered_tokens());
        assert_eq!(
            list(&repository(options)).await,
            Err(Status::new(Code::UNAUTHENTICATED, "invalid token"))
        );
        assert_eq!(tokens_seen(&service), ["Bearer token-1", "Bearer token-2"]);
    })
    .await;
}

#[tokio::test]
async fn no_request_is_sent_without_a_token() {
    guarded(async {
        let service = FakeService::start(|_, _| page().into());
        let source = || std::future::ready(Err("not logged in".into()));
        let options = PrpcOptions::new(service.url()).bearer_tokens(source);
        let url = service.url();
        assert_eq!(
            list(&repository(options)).await,
            Err(Status::new(
                Code::UNAUTHENTICATED,
                format!("cannot get a token for the CIPD service {url}: not logged in")
            ))
        );
        assert!(service.requests().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_token_that_does_not_arrive_is_not_reported_as_a_service_error() {
    guarded(async {
        let service = FakeService::start(|_, _| page().into());
        let options = PrpcOptions::new(service.url())
            .bearer_tokens(std::future::pending)
            .deadline(Duration::from_millis(50));
        let url = service.url();
        assert_eq!(
            list(&repository(options)).await,
            Err(Status::new(
                Code::DEADLINE_EXCEEDED,
                format!("there was no token for the CIPD service {url} within 50ms")
            ))
        );
        assert!(service.requests().is_empty());
    })
    .await;
}

#[test]
fn a_token_is_not_sent_over_plain_http_to_another_host() {
    let options = PrpcOptions::new("http://cipd.example:8080").bearer_tokens(numbered_tokens());
    let error = PrpcRepository::new(options).expect_err("rejected");
    assert_eq!(
        error.to_string(),
        "tokens must not be sent to http://cipd.example:8080 unencrypted: use https"
    );
}

/// Returns a self-signed certificate in PEM, and a TLS server configuration with it.
fn self_signed() -> (String, ServerConfig) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions that ring supports")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a key that matches the certificate");
    (cert.pem(), server)
}

#[tokio::test]
async fn a_service_with_its_own_root_certificate_is_called_over_tls() {
    guarded(async {
        let (pem, tls) = self_signed();
        let service = FakeService::start_tls(tls, |_, _| page().gzip().into());
        let options = PrpcOptions::new(service.url())
            .root_certificates(pem)
            .bearer_tokens(numbered_tokens());
        let page = list(&repository(options)).await.expect("a page");
        assert_eq!(page.metadata, entries(1, 1));
        assert_eq!(tokens_seen(&service), ["Bearer token-1"]);
    })
    .await;
}

#[tokio::test]
async fn an_untrusted_service_gets_no_request() {
    guarded(async {
        let (_, tls) = self_signed();
        let (other, _) = self_signed();
        let service = FakeService::start_tls(tls, |_, _| page().into());
        let options = PrpcOptions::new(service.url()).root_certificates(other);
        let error = list(&repository(options)).await.expect_err("untrusted");
        let url = service.url();
        assert_eq!(error.code, Code::UNAVAILABLE);
        let start = format!("cannot make a secure connection to the CIPD service {url}: ");
        assert!(error.message.starts_with(&start), "{error}");
        assert!(service.requests().is_empty());
    })
    .await;
}

#[test]
fn root_certificates_that_cannot_be_parsed_are_rejected() {
    for pem in [
        "",
        "not PEM",
        "-----BEGIN CERTIFICATE-----\nAA==",
        "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
    ] {
        let options = PrpcOptions::new("https://cipd.example").root_certificates(pem);
        let error = PrpcRepository::new(options).expect_err("rejected");
        assert_eq!(error.to_string(), "cannot read the root certificates");
    }
}
