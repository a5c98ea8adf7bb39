use admission_proto::wire::Timestamp;
use proptest::prelude::*;

use super::*;

const BINARY: &str = "application/prpc; encoding=binary";

fn head(http_status: u16, code: &str, content_type: &str) -> Head {
    Head {
        http_status,
        code: Some(code.into()),
        content_type: content_type.into(),
        ..Head::default()
    }
}

fn headless(http_status: u16) -> Head {
    Head {
        http_status,
        content_type: "text/html".into(),
        ..Head::default()
    }
}

fn failure(head: &Head, body: &str) -> Failure {
    let answer = head.decode(body.as_bytes());
    answer.expect_err("it is not an answer")
}

/// Returns code, message, and whether the call is tried again.
fn told(head: &Head, body: &str) -> (Code, String, bool) {
    let Failure { status, retry } = failure(head, body);
    (status.code, status.message, retry != Retry::Never)
}

#[test]
fn code_zero_makes_the_body_a_page_whatever_http_says() {
    let entry = cipd::InstanceMetadata {
        key: "k".into(),
        value: vec![1, 2],
        content_type: "text/plain".into(),
        fingerprint: "f".into(),
        attached_by: "user:a".into(),
        attached_ts: Some(Timestamp {
            seconds: 5,
            nanos: 0,
        }),
    };
    let answer = cipd::ListMetadataResponse {
        metadata: vec![entry.clone()],
        next_page_token: "next".into(),
    };
    for http in [200, 500] {
        let head = head(http, "0", BINARY);
        assert!(head.promises_answer());
        let page = head.decode(&answer.encode_to_vec()).expect("an answer");
        assert_eq!(page.metadata, [InstanceMetadata::from(entry.clone())]);
        assert_eq!(page.next_page_token, "next");
    }
}

#[test]
fn only_the_encoding_that_was_asked_for_is_taken() {
    for taken in [
        BINARY,
        "application/prpc",
        "Application/PRPC;Encoding=\"binary\"",
        "application/prpc; charset=x; encoding=binary",
    ] {
        head(200, "0", taken).decode(b"").expect("taken");
    }
    for other in [
        "",
        "application/json",
        "text/html; encoding=binary",
        "application/prpc; encoding=json",
        "application/prpcx",
    ] {
        assert_eq!(
            told(&head(200, "0", other), ""),
            (
                Code::INTERNAL,
                format!(
                    "prpc: output format (\"{other}\") doesn't match expected format (\"{BINARY}\")"
                ),
                false
            )
        );
    }
}

#[test]
fn a_body_that_is_no_message_is_an_error() {
    let (code, message, again) = told(&head(200, "0", BINARY), "\x0a\x7f");
    assert_eq!(code, Code::INTERNAL);
    assert!(!again);
    assert!(
        message.starts_with("prpc: failed to unmarshal the response: "),
        "{message}"
    );
}

#[test]
fn entries_of_two_bytes_do_not_fill_memory() {
    let head = head(200, "0", BINARY);
    let most = b"\x0a\x00".repeat(MAX_ENTRIES);
    let page = head.decode(&most).expect("an answer");
    assert_eq!(page.metadata.len(), MAX_ENTRIES);
    let more = [&most[..], b"\x0a\x00"].concat();
    assert_eq!(
        told(&head, str::from_utf8(&more).expect("control characters")),
        (
            Code::UNAVAILABLE,
            "the response has more than 524288 entries".to_owned(),
            false
        )
    );
}

#[test]
fn another_code_makes_the_body_its_message() {
    for (code, again) in [(Code::NOT_FOUND, false), (Code::UNAVAILABLE, true)] {
        let head = head(200, &code.number().to_string(), "text/plain");
        assert!(!head.promises_answer());
        assert_eq!(
            told(&head, "no such\ninstance\n\n"),
            (code, "no such\ninstance\n".to_owned(), again)
        );
    }
    let odd = head(200, "12345", "text/plain");
    assert_eq!(failure(&odd, "odd").status.code.number(), 12345);
}

#[test]
fn a_code_that_is_no_number_is_quoted() {
    for (given, quoted) in [("", "\"\""), ("0x0", "\"0x0\""), ("a\"b", r#""a\"b""#)] {
        assert_eq!(
            told(&head(200, given, BINARY), ""),
            (
                Code::INTERNAL,
                format!("prpc: invalid X-Prpc-Grpc-Code header value {quoted}"),
                false
            )
        );
    }
}

#[test]
fn without_a_code_http_decides() {
    let page = "<html><body><h1>Error</h1> try later</body></html>";
    for (http, code, again) in [
        (401, Code::UNAUTHENTICATED, false),
        (403, Code::PERMISSION_DENIED, false),
        (500, Code::INTERNAL, true),
        (501, Code::INTERNAL, false),
        (502, Code::INTERNAL, true),
        (503, Code::UNAVAILABLE, true),
        (504, Code::INTERNAL, true),
        (599, Code::INTERNAL, false),
    ] {
        let text = "Error try later".to_owned();
        assert_eq!(told(&headless(http), page), (code, text, again));
    }
    for (http, again) in [(200, false), (302, false), (404, false), (429, true)] {
        assert_eq!(
            told(&headless(http), "<a>\n"),
            (
                Code::INTERNAL,
                format!(r#"prpc: no X-Prpc-Grpc-Code header, HTTP status {http}, body: "<a>\n""#),
                again
            )
        );
    }
    assert_eq!(
        failure(&headless(502), "\n").status.message,
        "HTTP status 502 with no message"
    );
}

#[test]
fn a_message_is_cut_after_4096_bytes() {
    let fits = "ä".repeat(2048);
    assert_eq!(failure(&head(200, "5", ""), &fits).status.message, fits);
    let head = head(200, "5", "");
    let message = failure(&head, &format!("x{fits}\n")).status.message;
    assert_eq!(message, format!("x{}...", "ä".repeat(2047)));
    let message = failure(&headless(500), &format!("x{fits}")).status.message;
    assert_eq!(message.len(), 4095 + 3);
}

#[test]
fn details_come_in_one_header_or_in_several() {
    let detail = |n: u8| Any {
        type_url: format!("type.example.com/{n}"),
        value: vec![n],
    };
    let spelled = |n| BASE64_STANDARD.encode(detail(n).encode_to_vec());
    let mut head = head(403, "7", "text/plain");
    head.details = vec![format!("{}, {}", spelled(1), spelled(2)), spelled(3)];
    let status = failure(&head, "no").status;
    let expected: Vec<_> = (1..=3)
        .map(detail)
        .map(|Any { type_url, value }| Detail { type_url, value })
        .collect();
    assert_eq!(status.details, expected);
    assert_eq!(status.code, Code::PERMISSION_DENIED);
}

#[test]
fn details_that_cannot_be_read_are_an_error() {
    let mut head = head(403, "7", "text/plain");
    head.details = vec!["?".into()];
    assert_eq!(
        told(&head, "no"),
        (
            Code::INTERNAL,
            r#"prpc: invalid header X-Prpc-Status-Details-Bin: "?""#.to_owned(),
            false
        )
    );
    head.details = vec![BASE64_STANDARD.encode(b"\x0a\x7f")];
    let (code, message, _) = told(&head, "no");
    assert_eq!(code, Code::INTERNAL);
    assert!(
        message.starts_with("prpc: failed to unmarshal status detail: "),
        "{message}"
    );
}

#[test]
fn the_pause_that_the_service_asks_for_is_told() {
    let mut head = headless(503);
    head.retry_after = parse_retry_after("7");
    assert_eq!(
        failure(&head, "").retry,
        Retry::After(Duration::from_secs(7))
    );
    for unread in ["", "-1", "Fri, 31 Dec 1999 23:59:59 GMT"] {
        assert_eq!(parse_retry_after(unread), None);
    }
}

proptest! {
    #[test]
    fn no_response_is_too_odd(
        http_status in 0_u16..1000,
        code in proptest::option::of("[-+0-9a-z]{0,3}"),
        content_type in "(application/prpc)?[; =\"a-z]{0,20}",
        details in proptest::collection::vec("[A-Za-z0-9=, ]{0,20}", 0..3),
        body in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let head = Head {
            http_status,
            code,
            content_type,
            details,
            retry_after: None,
        };
        // An answer only where the service says so.
        prop_assert!(head.decode(&body).is_err() || head.promises_answer());
    }
}
