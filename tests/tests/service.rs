//! `PrpcRepository` against a CIPD service that fails.

use std::time::Duration;

use conformance::logs::{Line, Lines};
use conformance::repositories::entries;
use conformance::service::{Answer, ClosedPort, FakeService, Response};
use conformance::{
    Code, Detail, HashAlgo, ListMetadata, MetadataPage, PrpcOptions, PrpcRepository,
    Repository as _, Status, eventually, guarded, pin,
};
use futures_util::future::join_all;

/// Returns the request of most tests.
fn request() -> ListMetadata {
    let mut request = ListMetadata::default();
    request.package = "a/b".into();
    request.instance = pin("a/b").instance().object_ref();
    request
}

fn repository(url: impl Into<String>) -> PrpcRepository {
    with_options(PrpcOptions::new(url))
}

fn with_options(options: PrpcOptions) -> PrpcRepository {
    PrpcRepository::new(options).expect("a repository")
}

async fn list(repository: &PrpcRepository) -> Result<MetadataPage, Status> {
    repository.list_metadata(request()).await
}

async fn error_of(repository: &PrpcRepository) -> Status {
    list(repository).await.expect_err("the call fails")
}

fn page() -> Response {
    Response::page(entries(3, 10))
}

fn start(
    answer: impl Into<Answer> + Clone + Send + Sync + 'static,
) -> (FakeService, PrpcRepository) {
    let service = FakeService::start(move |_, _| answer.clone().into());
    let repository = repository(service.url());
    (service, repository)
}

/// Starts a service that sends `first` and then pages.
fn start_after(first: impl Into<Answer>) -> (FakeService, PrpcRepository) {
    let first = first.into();
    let service = FakeService::start(move |number, _| match number {
        0 => first.clone(),
        _ => page().into(),
    });
    let repository = repository(service.url());
    (service, repository)
}

macro_rules! tests {
    ($(async fn $name:ident() $body:block)*) => {$(
        #[tokio::test]
        async fn $name() {
            guarded(async $body).await;
        }
    )*};
}

tests! {
    async fn a_request_has_the_line_headers_and_message_of_prpc() {
        let (service, repository) = start(page());
        let mut request = request();
        request.keys = vec!["k1".into(), "k2".into()];
        request.page_size = 7;
        request.page_token = "token".into();
        repository.list_metadata(request).await.expect("a page");

        let [request] = &service.requests()[..] else { panic!("one request") };
        assert_eq!(request.line, "POST /prpc/cipd.Repository/ListMetadata");
        let binary = "application/prpc; encoding=binary";
        for (header, value) in [
            ("content-type", binary),
            ("accept", binary),
            ("accept-encoding", "gzip"),
            ("x-prpc-max-response-size", "33521664"),
            ("user-agent", concat!("admission-host/", env!("CARGO_PKG_VERSION"))),
        ] {
            assert_eq!(request.header(header), Some(value));
        }
        assert_eq!(request.header("authorization"), None);
        let timeout = request.header("x-prpc-grpc-timeout").expect("a timeout");
        let millis: u32 = timeout.strip_suffix('m').expect("in milliseconds").parse().expect("a number");
        assert!((1..=60_000).contains(&millis));

        let message = request.message();
        let instance = message.instance.expect("an instance");
        assert_eq!(message.package, "a/b");
        assert_eq!((instance.hash_algo, &*instance.hex_digest), (1, &*"a".repeat(40)));
        assert_eq!(message.keys, ["k1", "k2"]);
        assert_eq!((message.page_size, &*message.page_token), (7, "token"));
    }

    async fn a_response_may_be_plain_chunked_or_compressed() {
        for answer in [page(), page().gzip(), page().chunked(), page().gzip().chunked()] {
            let (service, repository) = start(answer);
            let page = list(&repository).await.expect("a page");
            assert_eq!(page, MetadataPage::new(entries(3, 10), ""));
            assert_eq!(service.requests().len(), 1);
        }
    }

    async fn a_service_error_is_returned_with_its_details() {
        let detail = Detail { type_url: "type.example.com/d".into(), value: vec![0, 255] };
        let text = r#"prefix "a/b" doesn't exist or not visible to unauthenticated callers"#;
        let (service, repository) =
            start(Response::error(403, Code::PERMISSION_DENIED, text).with_detail(detail.clone()));
        let expected = Status::new(Code::PERMISSION_DENIED, text).with_detail(detail);
        assert_eq!(error_of(&repository).await, expected);
        assert_eq!(service.requests().len(), 1);
    }

    async fn a_permanent_error_is_not_retried() {
        for (answer, code, message) in [
            (
                Response::error(404, Code::NOT_FOUND, "no such instance"),
                Code::NOT_FOUND,
                "no such instance",
            ),
            (
                Response::error(400, Code::INVALID_ARGUMENT, "bad 'page_token': not supported yet"),
                Code::INVALID_ARGUMENT,
                "bad 'page_token': not supported yet",
            ),
            (Response::new(401, "log in"), Code::UNAUTHENTICATED, "log in"),
            (
                Response::new(404, "Not Found"),
                Code::INTERNAL,
                r#"prpc: no X-Prpc-Grpc-Code header, HTTP status 404, body: "Not Found""#,
            ),
            (
                page().with("X-Prpc-Grpc-Code", "OK"),
                Code::INTERNAL,
                r#"prpc: invalid X-Prpc-Grpc-Code header value "OK""#,
            ),
            (
                // In lower case it is a second header, because `with` compares names exactly.
                page().with("x-prpc-grpc-code", "7"),
                Code::INTERNAL,
                r#"prpc: invalid X-Prpc-Grpc-Code header value "0, 7""#,
            ),
            (
                page().with("Content-Type", "text/html"),
                Code::INTERNAL,
                r#"prpc: output format ("text/html") doesn't match expected format ("application/prpc; encoding=binary")"#,
            ),
        ] {
            let (service, repository) = start(answer);
            assert_eq!(error_of(&repository).await, Status::new(code, message));
            assert_eq!(service.requests().len(), 1, "{message}");
        }
    }

    async fn an_unrequested_encoding_is_an_error() {
        let (service, repository) = start(page().with("Content-Encoding", "br"));
        let url = service.url();
        assert_eq!(
            error_of(&repository).await,
            Status::new(
                Code::INTERNAL,
                format!("the CIPD service {url} replied in an encoding that was not requested")
            )
        );
    }

    async fn a_redirect_is_not_followed() {
        let other = FakeService::start(|_, _| page().into());
        let (_service, repository) = start(Response::new(307, "there").with("Location", other.url()));
        assert_eq!(
            error_of(&repository).await.message,
            r#"prpc: no X-Prpc-Grpc-Code header, HTTP status 307, body: "there""#
        );
        assert!(other.requests().is_empty());
    }

    async fn a_transient_error_is_retried() {
        for first in [
            Response::error(503, Code::UNAVAILABLE, "Service unavailable").into(),
            Response::error(500, Code::INTERNAL, "Internal server error").into(),
            Response::error(429, Code::RESOURCE_EXHAUSTED, "slow down").into(),
            Response::new(502, "<html><body>Bad gateway</body></html>").into(),
            Response::new(429, "").with("Retry-After", "0").into(),
            // The body is not compressed.
            page().with("Content-Encoding", "gzip").into(),
            Answer::Cut(page(), 1),
            Answer::Cut(page().chunked(), 1),
            Answer::Cut(page().gzip(), 1),
            Answer::Cut(page(), usize::MAX),
            Answer::Reset,
        ] {
            let (service, repository) = start_after(first.clone());
            let page = list(&repository).await.expect("a page");
            assert_eq!(page.metadata.len(), 3, "{first:?}");
            assert_eq!(service.requests().len(), 2, "{first:?}");
        }
    }

    async fn a_service_that_starts_late_is_reached() {
        let port = ClosedPort::reserve();
        let url = port.url();
        let repository = repository(url.as_str());
        let failed = |line: &Line| {
            line.url == url && line.message == "the CIPD service failed, retrying"
        };
        let lines = Lines::collect();
        let start_late = async {
            eventually(|| lines.of_plugin("").iter().any(failed)).await;
            port.serve(|_, _| page().into())
        };
        let (page, service) = tokio::join!(list(&repository), start_late);
        page.expect("a page");
        assert_eq!(service.requests().len(), 1);
    }

    async fn a_response_over_the_size_limit_is_rejected_early() {
        let limit = 100 << 10;
        let bomb = Response::page(entries(1, 16 << 20));
        for (answer, size) in [
            // The first is rejected by its `Content-Length`, the others by the bytes read.
            (bomb.clone(), format!(" {}", bomb.size())),
            (bomb.clone().chunked(), String::new()),
            (bomb.clone().gzip(), String::new()),
            (bomb.gzip().chunked(), String::new()),
        ] {
            let (service, _) = start(answer);
            let repository =
                with_options(PrpcOptions::new(service.url()).max_response_size(limit));
            let error = error_of(&repository).await;
            assert_eq!(error.code, Code::UNAVAILABLE);
            assert_eq!(
                error.message,
                format!("prpc: the response size{size} exceeds the client limit {limit}")
            );
            assert_eq!(service.requests().len(), 1);
        }
    }

    async fn a_response_too_large_for_the_service_is_not_retried() {
        let detail = Detail {
            type_url: "type.googleapis.com/luci.prpc.ErrorDetails".into(),
            value: Vec::new(),
        };
        let answer = Response::error(503, Code::UNAVAILABLE, "too large").with_detail(detail);
        let (service, repository) = start(answer);
        assert_eq!(error_of(&repository).await.message, "too large");
        assert_eq!(service.requests().len(), 1);
    }

    async fn a_long_error_is_truncated_and_not_read_to_its_end() {
        let answer = Response::error(404, Code::NOT_FOUND, &"x".repeat(1 << 20));
        for answer in [answer.clone(), answer.chunked()] {
            // The last byte is missing, so reading to the end would fail.
            let (_service, repository) = start(Answer::Cut(answer, 1));
            let error = error_of(&repository).await;
            assert_eq!(error.code, Code::NOT_FOUND);
            assert_eq!(error.message, format!("{}...", "x".repeat(4096)));
        }
    }

    async fn a_dropped_call_closes_its_connection() {
        let (service, repository) = start(Answer::Silence);
        tokio::select! {
            answer = list(&repository) => panic!("not pending: {answer:?}"),
            () = service.wait_for_requests(1) => {}
        }
        service.wait_for_abandoned(1).await;
    }

    async fn a_call_to_a_silent_service_fails_at_the_deadline() {
        let (service, _) = start(Answer::Silence);
        let repository =
            with_options(PrpcOptions::new(service.url()).deadline(Duration::from_millis(50)));
        let url = service.url();
        assert_eq!(
            error_of(&repository).await,
            Status::new(
                Code::DEADLINE_EXCEEDED,
                format!("the CIPD service {url} did not answer within 50ms")
            )
        );
        service.wait_for_abandoned(1).await;
    }

    async fn the_error_at_the_deadline_contains_the_last_error() {
        let (service, _) = start(Response::error(503, Code::UNAVAILABLE, "busy"));
        let repository =
            with_options(PrpcOptions::new(service.url()).deadline(Duration::from_millis(300)));
        let url = service.url();
        assert_eq!(
            error_of(&repository).await,
            Status::new(
                Code::DEADLINE_EXCEEDED,
                format!("the CIPD service {url} did not answer within 300ms; the last error was UNAVAILABLE: busy")
            )
        );
    }

    async fn a_retry_after_beyond_the_deadline_fails_at_once() {
        let busy = Response::new(503, "busy").with("Retry-After", "3600");
        let (service, _) = start(busy);
        // Longer than the time limit of a test.
        let deadline = Duration::from_secs(3000);
        let repository = with_options(PrpcOptions::new(service.url()).deadline(deadline));
        assert_eq!(error_of(&repository).await.code, Code::DEADLINE_EXCEEDED);
        assert_eq!(service.requests().len(), 1);
    }

    async fn all_calls_share_a_retry_budget_that_responses_refill() {
        let down = || Response::error(503, Code::UNAVAILABLE, "down");
        let service = FakeService::start(move |number, _| match number {
            0..=90 | 99 => down().into(),
            91..=98 => Response::error(404, Code::NOT_FOUND, "no such instance").into(),
            _ => page().into(),
        });
        let repository = repository(service.url());
        for error in join_all((0..50).map(|_| error_of(&repository))).await {
            assert_eq!(error, Status::new(Code::UNAVAILABLE, "down"));
        }
        assert_eq!(service.requests().len(), 50 + 40);
        assert_eq!(error_of(&repository).await.code, Code::UNAVAILABLE);
        assert_eq!(service.requests().len(), 91);

        for _ in 0..8 {
            assert_eq!(error_of(&repository).await.code, Code::NOT_FOUND);
        }
        list(&repository).await.expect("a page from the retry");
        assert_eq!(service.requests().len(), 101);
    }

    async fn an_invalid_request_is_not_sent() {
        let (service, repository) = start(page());
        let mut short = request();
        short.instance.hex_digest.pop();
        let mut unknown = request();
        unknown.instance.hash_algo = HashAlgo::from(7);
        let mut name = request();
        name.package = "A".into();
        for (request, message) in [
            (short, "bad 'instance': invalid SHA1 hex digest: uneven number of symbols in the hex string"),
            (unknown, "bad 'instance': unsupported unknown hash algorithm #7"),
            (name, r#"bad 'package': invalid package name "A": must be a slash-separated path where each component matches "[a-z0-9_\-\.]+""#),
        ] {
            let error = repository.list_metadata(request).await.expect_err("rejected");
            assert_eq!(error, Status::new(Code::INVALID_ARGUMENT, message));
        }
        assert!(service.requests().is_empty());
    }

    async fn a_request_for_another_service_is_rejected() {
        let (service, repository) = start(page());
        let mut own = request();
        own.service_url = format!("{}/", service.url());
        repository.list_metadata(own).await.expect("a page");
        let mut other = request();
        other.service_url = "https://other.example.com".into();
        let error = repository.list_metadata(other).await.expect_err("rejected");
        assert_eq!(error.code, Code::PERMISSION_DENIED);
        assert_eq!(service.requests().len(), 1);
    }

    async fn an_invalid_host_is_not_retried() {
        let url = "http://1.2.3.4.5";
        assert_eq!(
            error_of(&repository(url)).await,
            Status::new(
                Code::UNAVAILABLE,
                format!("cannot call the CIPD service {url}: invalid IPv4 address; is the URL right?")
            )
        );
    }

    async fn an_unreachable_service_is_named_in_the_error() {
        let port = ClosedPort::reserve();
        let options = PrpcOptions::new(port.url()).deadline(Duration::from_millis(10));
        let error = error_of(&with_options(options)).await;
        let url = port.url();
        assert_eq!(
            error,
            Status::new(
                Code::DEADLINE_EXCEEDED,
                format!("the CIPD service {url} did not answer within 10ms; the last error was UNAVAILABLE: cannot reach the CIPD service {url}: Connection refused (os error 111); check its URL and the network")
            )
        );
    }
}
