use admission_proto::wire::Timestamp;
use proptest::prelude::*;
use reqwest::header::{HeaderName, HeaderValue};

use super::*;

fn head(http_status: u16, headers: &[(&str, &str)]) -> Head {
    let headers = headers.iter().map(|(name, value)| {
        let name: HeaderName = name.parse().expect("a name");
        let value = HeaderValue::from_str(value).expect("a value");
        (name, value)
    });
    let mut map = HeaderMap::new();
    headers.for_each(|(name, value)| {
        map.append(name, value);
    });
    Head {
        http_status,
        headers: map,
    }
}

fn page_head(content_type: &str) -> Head {
    head(200, &[(CODE, "0"), ("Content-Type", content_type)])
}

fn error_head(code: &str) -> Head {
    head(200, &[(CODE, code), ("Content-Type", "text/plain")])
}

fn foreign_head(http_status: u16) -> Head {
    head(http_status, &[])
}

fn failure(head: &Head, body: &str) -> Failure {
    head.decode(body.as_bytes()).expect_err("not a page")
}

/// Returns code, message, and whether the call is retried.
fn summary(head: &Head, body: &str) -> (Code, String, bool) {
    let Failure {
        status,
        retry_after,
    } = failure(head, body);
    (status.code, status.message, retry_after.is_some())
}

#[test]
fn a_request_has_the_field_numbers_of_the_service() {
    let request = ListMetadata {
        package: "p".into(),
        keys: vec!["k".into()],
        page_size: 7,
        page_token: "t".into(),
        ..ListMetadata::default()
    };
    let expected = [
        &[0x0a, 1, b'p', 0x12, 0, 0x1a, 1, b'k'][..],
        &[0xa0, 0x01, 7, 0xaa, 0x01, 1, b't'],
    ];
    assert_eq!(encode(request), expected.concat());
}

#[test]
fn a_timeout_has_at_most_8_digits() {
    for (left, encoded) in [
        (Duration::ZERO, "1m"),
        (Duration::from_micros(1500), "1m"),
        (Duration::from_secs(60), "60000m"),
        (Duration::MAX, "86400000m"),
    ] {
        assert_eq!(timeout(left), encoded);
    }
}

#[test]
fn code_0_makes_the_body_a_page_whatever_the_http_status() {
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
    let response = cipd::ListMetadataResponse {
        metadata: vec![entry.clone()],
        next_page_token: "next".into(),
    };
    for http in [200, 500] {
        let head = Head {
            http_status: http,
            ..page_head(MEDIA_TYPE)
        };
        assert!(head.is_page());
        let page = head.decode(&response.encode_to_vec()).expect("a page");
        assert_eq!(page.metadata, [InstanceMetadata::from(entry.clone())]);
        assert_eq!(page.next_page_token, "next");
    }
}

#[test]
fn only_the_binary_encoding_is_accepted() {
    for accepted in [
        MEDIA_TYPE,
        "application/prpc",
        "Application/PRPC;Encoding=\"binary\"",
        "application/prpc; charset=x; encoding=binary",
    ] {
        page_head(accepted).decode(b"").expect("accepted");
    }
    for other in [
        "",
        "application/json",
        "text/html; encoding=binary",
        "application/prpc; encoding=json",
        "application/prpcx",
    ] {
        assert_eq!(
            summary(&page_head(other), ""),
            (
                Code::INTERNAL,
                format!(
                    "prpc: output format (\"{other}\") doesn't match expected format (\"{MEDIA_TYPE}\")"
                ),
                false
            )
        );
    }
}

#[test]
fn a_body_that_is_not_a_message_is_an_error() {
    let (code, message, is_retried) = summary(&page_head(MEDIA_TYPE), "\x0a\x7f");
    assert_eq!(code, Code::INTERNAL);
    assert!(!is_retried);
    assert!(
        message.starts_with("prpc: failed to unmarshal the response: "),
        "{message}"
    );
}

#[test]
fn the_number_of_entries_is_limited_before_they_are_decoded() {
    let head = page_head(MEDIA_TYPE);
    let most = b"\x0a\x00".repeat(MAX_ENTRIES);
    let page = head.decode(&most).expect("a page");
    assert_eq!(page.metadata.len(), MAX_ENTRIES);
    let more = [&most[..], b"\x0a\x00"].concat();
    assert_eq!(
        summary(&head, str::from_utf8(&more).expect("control characters")),
        (
            Code::UNAVAILABLE,
            "the response has more than 524288 entries".to_owned(),
            false
        )
    );
}

#[test]
fn another_code_makes_the_body_its_message() {
    for (code, is_retried) in [(Code::NOT_FOUND, false), (Code::UNAVAILABLE, true)] {
        let head = error_head(&code.number().to_string());
        assert!(!head.is_page());
        assert_eq!(
            summary(&head, "no such\ninstance\n\n"),
            (code, "no such\ninstance\n".to_owned(), is_retried)
        );
    }
    let unknown = failure(&error_head("12345"), "odd");
    assert_eq!(unknown.status.code.number(), 12345);
}

#[test]
fn a_code_that_is_not_a_number_is_quoted() {
    for (given, quoted) in [("", "\"\""), ("0x0", "\"0x0\""), ("a\"b", r#""a\"b""#)] {
        assert_eq!(
            summary(&error_head(given), ""),
            (
                Code::INTERNAL,
                format!("prpc: invalid X-Prpc-Grpc-Code header value {quoted}"),
                false
            )
        );
    }
}

#[test]
fn without_a_code_the_http_status_decides() {
    for (http, code, is_retried) in [
        (401, Code::UNAUTHENTICATED, false),
        (403, Code::PERMISSION_DENIED, false),
        (500, Code::INTERNAL, true),
        (501, Code::INTERNAL, false),
        (502, Code::INTERNAL, true),
        (503, Code::UNAVAILABLE, true),
        (504, Code::INTERNAL, true),
        (599, Code::INTERNAL, false),
    ] {
        for (body, message) in [
            ("try later", "try later".to_owned()),
            (
                " <html>later",
                format!("HTTP status {http} with an HTML page"),
            ),
            ("\n", format!("HTTP status {http} with no message")),
        ] {
            let expected = (code, message, is_retried);
            assert_eq!(summary(&foreign_head(http), body), expected);
        }
    }
    for (http, is_retried) in [(200, false), (302, false), (404, false), (429, true)] {
        assert_eq!(
            summary(&foreign_head(http), "<a>\n"),
            (
                Code::INTERNAL,
                format!(r#"prpc: no X-Prpc-Grpc-Code header, HTTP status {http}, body: "<a>\n""#),
                is_retried
            )
        );
    }
}

#[test]
fn details_come_in_one_header_or_in_several() {
    let detail = |n: u8| Any {
        type_url: format!("type.example.com/{n}"),
        value: vec![n],
    };
    let encoded = |n| BASE64_STANDARD.encode(detail(n).encode_to_vec());
    let two = format!("{}, {}", encoded(1), encoded(2));
    let head = head(403, &[(CODE, "7"), (DETAILS, &two), (DETAILS, &encoded(3))]);
    let status = failure(&head, "no").status;
    let expected: Vec<_> = (1..=3)
        .map(detail)
        .map(|Any { type_url, value }| Detail { type_url, value })
        .collect();
    assert_eq!(status.details, expected);
    assert_eq!(status.code, Code::PERMISSION_DENIED);
}

#[test]
fn malformed_details_are_an_error() {
    let with_details = |details: &str| head(403, &[(CODE, "7"), (DETAILS, details)]);
    assert_eq!(
        summary(&with_details("?"), "no"),
        (
            Code::INTERNAL,
            r#"prpc: invalid header X-Prpc-Status-Details-Bin: "?""#.to_owned(),
            false
        )
    );
    let (code, message, _) = summary(&with_details(&BASE64_STANDARD.encode(b"\x0a\x7f")), "no");
    assert_eq!(code, Code::INTERNAL);
    assert!(
        message.starts_with("prpc: failed to unmarshal status detail: "),
        "{message}"
    );
}

#[test]
fn the_pause_that_the_service_asks_for_is_returned() {
    for (given, seconds) in [
        ("7", 7),
        ("", 0),
        ("-1", 0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
    ] {
        let head = head(503, &[("Retry-After", given)]);
        assert_eq!(
            failure(&head, "").retry_after,
            Some(Duration::from_secs(seconds))
        );
    }
}

proptest! {
    #[test]
    fn any_response_is_decoded_without_a_panic(
        http_status in 0_u16..1000,
        code in proptest::option::of("[-+0-9a-z]{0,3}"),
        content_type in "(application/prpc)?[; =\"a-z]{0,20}",
        details in proptest::collection::vec("[A-Za-z0-9=, ]{0,20}", 0..3),
        body in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut headers = vec![("Content-Type", &*content_type)];
        headers.extend(code.iter().map(|code| (CODE, &**code)));
        headers.extend(details.iter().map(|detail| (DETAILS, &**detail)));
        let head = head(http_status, &headers);
        prop_assert!(head.decode(&body).is_err() || head.is_page());
    }
}
