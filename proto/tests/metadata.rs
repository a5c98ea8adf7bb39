//! Metadata entries are accepted, rejected and identified as in the reference.

use std::error::Error as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use admission_proto::{
    InstanceMetadata, MAX_METADATA_VALUE, MetadataError, fingerprint, validate_content_type,
    validate_metadata_key, validate_metadata_value, wire,
};

fn refusal(result: Result<(), MetadataError>) -> Option<String> {
    result.err().map(|error| error.to_string())
}

#[test]
fn a_key_has_at_most_400_allowed_characters() {
    let longest = "k".repeat(400);
    for key in ["a", "allowed-sha256", "luci-slsa_vsa", "0", &longest] {
        assert_eq!(refusal(validate_metadata_key(key)), None);
    }
    for key in ["", "Key", "a.b", "a b", "key\n", "cl\u{e9}"] {
        assert_eq!(
            refusal(validate_metadata_key(key)),
            Some(format!(
                r#"invalid metadata key {key:?}: should match "^[a-z0-9_\\-]+$""#
            ))
        );
    }
    let too_long = "k".repeat(401);
    assert_eq!(
        refusal(validate_metadata_key(&too_long)),
        Some(format!(
            r#"invalid metadata key "{too_long}": too long, should be <=400 chars"#
        ))
    );
}

#[test]
fn a_value_has_at_most_524288_bytes() {
    assert_eq!(MAX_METADATA_VALUE, 524_288);
    assert_eq!(refusal(validate_metadata_value(&vec![0; 524_288])), None);
    assert_eq!(
        refusal(validate_metadata_value(&vec![0; 524_289])),
        Some("the metadata value is too long: should be <=524288 bytes, got 524289".to_owned())
    );
}

#[test]
fn a_content_type_is_empty_or_a_media_type() {
    for good in [
        "",
        "text/plain",
        "TEXT/Plain; charset=utf-8",
        r#"multipart/mixed; boundary="a; b\" c""#,
        "application/vnd.in-toto+json",
        "text/plain;",
    ] {
        assert_eq!(refusal(validate_content_type(good)), None);
    }
    for bad in [
        "text",
        "/plain",
        "text/",
        " ",
        "text/pl ain",
        "text/plain charset=utf-8",
        "text/plain; charset",
        "text/plain\n",
        "t\u{e9}xt/plain",
    ] {
        let error = validate_content_type(bad).expect_err(bad);
        assert_eq!(error.to_string(), format!("bad content type {bad:?}"));
        assert!(error.source().is_some(), "says what is wrong");
    }
}

#[test]
fn a_content_type_has_at_most_400_bytes() {
    let of_length = |length: usize| format!("text/plain; x={}", "x".repeat(length - 14));
    assert_eq!(refusal(validate_content_type(&of_length(400))), None);
    assert_eq!(
        refusal(validate_content_type(&of_length(401))),
        Some("the content type is too long: should be <=400 bytes, got 401".to_owned())
    );
}

#[test]
fn a_fingerprint_is_that_of_the_reference() {
    let expected = "06dd3884aa86b22603764bd7e5b0b41e";
    assert_eq!(fingerprint("key", b"value"), expected);
    assert_eq!(InstanceMetadata::new("key", "value").fingerprint, expected);
}

#[test]
fn an_entry_round_trips_through_the_wire_message() {
    let mut entry = InstanceMetadata::new("key", [0, 0xff]);
    entry.content_type = "text/plain".into();
    entry.attached_by = "user:a@example.com".into();
    for attached in [
        None,
        Some(UNIX_EPOCH + Duration::new(1_700_000_000, 1)),
        Some(UNIX_EPOCH - Duration::new(1, 999_999_999)),
    ] {
        entry.attached_ts = attached;
        let wire = wire::cipd::InstanceMetadata::from(entry.clone());
        assert_eq!(InstanceMetadata::from(wire), entry);
    }
}

#[test]
fn a_time_out_of_range_is_dropped() {
    let attached = |seconds, nanos| {
        InstanceMetadata::from(wire::cipd::InstanceMetadata {
            attached_ts: Some(wire::Timestamp { seconds, nanos }),
            ..Default::default()
        })
        .attached_ts
    };
    assert_eq!(attached(i64::MIN, 0), None::<SystemTime>);
    assert_eq!(attached(i64::MIN, i32::MIN), None);
    assert_eq!(
        attached(1, -1),
        Some(UNIX_EPOCH + Duration::new(0, 999_999_999))
    );
    let far = attached(i64::MAX, i32::MAX).map(|time| time > UNIX_EPOCH);
    assert_ne!(far, Some(false));
}
