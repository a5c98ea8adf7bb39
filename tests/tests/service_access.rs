//! How the repository that asks a CIPD service shows who asks, and to whom it does.

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

async fn ask(repository: &PrpcRepository) -> Result<MetadataPage, Status> {
    let mut request = ListMetadata::default();
    request.package = "a/b".into();
    request.instance = pin("a/b").instance().object_ref();
    repository.list_metadata(request).await
}

fn repository(options: PrpcOptions) -> PrpcRepository {
    PrpcRepository::new(options).expect("a repository")
}

/// Returns a source of tokens `token-1`, `token-2` and so on.
fn numbered() -> impl Fn() -> std::future::Ready<Result<String, TokenError>> {
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

/// Answers well only who has another token than the first one.
fn takes_the_second_token(_: usize, request: &Request) -> Answer {
    match request.header("authorization") {
        Some("Bearer token-1") | None => {
            Response::error(401, Code::UNAUTHENTICATED, "who is it?").into()
        }
        _ => page().into(),
    }
}

#[tokio::test]
async fn calls_share_a_token() {
    guarded(async {
        let service = FakeService::start(|_, _| page().into());
        let repository = repository(PrpcOptions::new(service.url()).bearer_tokens(numbered()));
        for answer in join_all((0..5).map(|_| ask(&repository))).await {
            answer.expect("an answer");
        }
        assert_eq!(tokens_seen(&service), ["Bearer token-1"; 5]);
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    guarded(async {
        let service = FakeService::start(takes_the_second_token);
        let options = PrpcOptions::new(service.url()).bearer_tokens(numbered());
        ask(&repository(options)).await.expect("an answer");
        assert_eq!(tokens_seen(&service), ["Bearer token-1", "Bearer token-2"]);

        let service = FakeService::start(|_, _| {
            Response::error(401, Code::UNAUTHENTICATED, "who is it?").into()
        });
        let options = PrpcOptions::new(service.url()).bearer_tokens(numbered());
        assert_eq!(
            ask(&repository(options)).await,
            Err(Status::new(Code::UNAUTHENTICATED, "who is it?"))
        );
        assert_eq!(tokens_seen(&service), ["Bearer token-1", "Bearer token-2"]);
    })
    .await;
}

#[tokio::test]
async fn without_a_token_to_be_had_nothing_is_asked() {
    guarded(async {
        let service = FakeService::start(|_, _| page().into());
        let source = || std::future::ready(Err("not logged in".into()));
        let options = PrpcOptions::new(service.url()).bearer_tokens(source);
        let url = service.url();
        assert_eq!(
            ask(&repository(options)).await,
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
async fn a_token_that_does_not_come_is_no_fault_of_the_service() {
    guarded(async {
        let service = FakeService::start(|_, _| page().into());
        let options = PrpcOptions::new(service.url())
            .bearer_tokens(std::future::pending)
            .deadline(Duration::from_millis(50));
        let url = service.url();
        assert_eq!(
            ask(&repository(options)).await,
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
fn a_token_is_not_sent_where_others_can_read_it() {
    let options = PrpcOptions::new("http://cipd.example:8080").bearer_tokens(numbered());
    let refused = PrpcRepository::new(options).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "tokens would be readable on the way to http://cipd.example:8080: use https"
    );
}

/// Returns a certificate in PEM that its bearer has signed itself, and a server that
/// shows it.
fn certified() -> (String, ServerConfig) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions that ring has")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("the key is the certificate's");
    (cert.pem(), server)
}

#[tokio::test]
async fn a_service_with_a_root_certificate_of_its_own_is_asked_over_tls() {
    guarded(async {
        let (pem, tls) = certified();
        let service = FakeService::start_tls(tls, |_, _| page().gzip().into());
        let options = PrpcOptions::new(service.url())
            .root_certificates(pem)
            .bearer_tokens(numbered());
        let page = ask(&repository(options)).await.expect("an answer");
        assert_eq!(page.metadata, entries(1, 1));
        assert_eq!(tokens_seen(&service), ["Bearer token-1"]);
    })
    .await;
}

#[tokio::test]
async fn a_service_that_nobody_vouches_for_is_asked_nothing() {
    guarded(async {
        let (_, tls) = certified();
        let (other, _) = certified();
        let service = FakeService::start_tls(tls, |_, _| page().into());
        let options = PrpcOptions::new(service.url()).root_certificates(other);
        let error = ask(&repository(options)).await.expect_err("not secure");
        let url = service.url();
        assert_eq!(error.code, Code::UNAVAILABLE);
        let start = format!("cannot make a secure connection to the CIPD service {url}: ");
        assert!(error.message.starts_with(&start), "{error}");
        assert!(service.requests().is_empty());
    })
    .await;
}

#[test]
fn root_certificates_that_cannot_be_parsed_are_refused() {
    for pem in [
        "",
        "not PEM",
        "-----BEGIN CERTIFICATE-----\nAA==",
        "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
    ] {
        let options = PrpcOptions::new("https://cipd.example").root_certificates(pem);
        let refused = PrpcRepository::new(options).expect_err("refused");
        assert_eq!(refused.to_string(), "cannot read the root certificates");
    }
}
