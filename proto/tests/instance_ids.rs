//! Instance IDs and object references are parsed and rejected as in the reference.

use admission_proto::HashMode::{Any, Known};
use admission_proto::{HashAlgo, HashMode, InstanceId, ObjectRef, ObjectRefError, wire};

const SHA256_ID: &str = "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";
const SHA256_HEX: &str = "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447";

fn object_ref(algo: i32, hex_digest: &str) -> ObjectRef {
    ObjectRef {
        hash_algo: HashAlgo::from(algo),
        hex_digest: hex_digest.to_owned(),
    }
}

fn decoded(id: &str, mode: HashMode) -> Result<ObjectRef, String> {
    ObjectRef::from_instance_id(id, mode).map_err(|error| error.to_string())
}

fn refusal(id: &str, reason: &str) -> Result<ObjectRef, String> {
    Err(format!("not a valid package instance ID {id:?}: {reason}"))
}

fn validated(object: &ObjectRef, mode: HashMode) -> Result<(), String> {
    object.validate(mode).map_err(|error| error.to_string())
}

#[test]
fn an_instance_id_with_a_known_hash_is_parsed_alike_in_both_modes() {
    let sha1 = "a".repeat(40);
    for mode in [Any, Known] {
        assert_eq!(decoded(SHA256_ID, mode), Ok(object_ref(2, SHA256_HEX)));
        assert_eq!(decoded(&sha1, mode), Ok(object_ref(1, &sha1)));
    }
}

#[test]
fn an_instance_id_with_an_unknown_hash_is_parsed_only_in_mode_any() {
    let algo_33 = format!("{}IQ", "q".repeat(40));
    let algo_3 = "B7r75joOfFfFcq7fHCKAIrU34oeFAT174Bf8eHMajMUD";
    let algo_166 = "a".repeat(39);

    assert_eq!(decoded(&algo_33, Any), Ok(object_ref(33, &"a".repeat(60))));
    assert_eq!(
        decoded(algo_3, Any),
        Ok(object_ref(
            3,
            "07bafbe63a0e7c57c572aedf1c228022b537e28785013d7be017fc78731a8cc5"
        ))
    );
    assert_eq!(
        decoded(&algo_166, Any),
        Ok(object_ref(166, &"69a".repeat(19)[..56])),
    );

    for (id, number) in [(&*algo_33, 33), (algo_3, 3), (&*algo_166, 166)] {
        let reason = format!("unsupported unknown hash algorithm #{number}");
        assert_eq!(decoded(id, Known), refusal(id, &reason));
    }
}

#[test]
fn an_invalid_instance_id_is_rejected_with_the_references_error() {
    let base64 =
        |at: usize| format!("cannot base64 decode: illegal base64 data at input byte {at}");
    let hex =
        |id: &str, wrong: char| format!("bad lowercase hex string {id:?}, wrong char {wrong}");
    let g_a39 = format!("g{}", "a".repeat(39));
    let aaa_a37 = format!("AAA{}", "a".repeat(37));
    let upper = "A".repeat(40);
    let cases = [
        (
            String::new(),
            "not a valid size for an encoded digest".to_owned(),
        ),
        (
            "a".repeat(27),
            "not a valid size for an encoded digest".to_owned(),
        ),
        (
            "B7r75joOfFfFcq7fHCKAIrU34oeFAT174Bf8eHMajMUA".to_owned(),
            "unspecified hash algo (0)".to_owned(),
        ),
        (
            "B7r75joOfFfFcq7fHCKAIrU34oeFAT174Bf8eHMajM==".to_owned(),
            base64(42),
        ),
        (
            "/7r75joOfFfFcq7fHCKAIrU34oeFAT174Bf8eHMajMUC".to_owned(),
            base64(0),
        ),
        (
            "+7r75joOfFfFcq7fHCKAIrU34oeFAT174Bf8eHMajMUC".to_owned(),
            base64(0),
        ),
        (
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAC".to_owned(),
            "wrong digest len 20 for algo SHA256".to_owned(),
        ),
        (
            format!("{}B", "A".repeat(43)),
            "wrong digest len 32 for algo SHA1".to_owned(),
        ),
        ("a".repeat(41), base64(40)),
        (format!("{}é", "a".repeat(30)), base64(30)),
        // The error names the first illegal byte, wherever the decoder stops.
        (format!("!{}!", "a".repeat(39)), base64(0)),
        (
            format!("\n{}!{}", "a".repeat(9), "a".repeat(31)),
            base64(10),
        ),
        (format!("{}\n", "a".repeat(41)), base64(41)),
        ("\n".repeat(28), "empty".to_owned()),
        ("A".repeat(30), "the digest can't be odd".to_owned()),
        (g_a39.clone(), hex(&g_a39, 'g')),
        (aaa_a37.clone(), hex(&aaa_a37, 'A')),
        (upper.clone(), hex(&upper, 'A')),
    ];
    for (id, reason) in cases {
        for mode in [Any, Known] {
            assert_eq!(decoded(&id, mode), refusal(&id, &reason));
        }
    }
}

#[test]
fn an_error_escapes_control_characters_of_an_id() {
    let id = format!("\x1b{}", "a".repeat(39));
    let error = ObjectRef::from_instance_id(&id, Known).expect_err("not hex");
    assert_eq!(
        error.to_string(),
        format!(
            r#"not a valid package instance ID "\x1b{0}": bad lowercase hex string "\x1b{0}", wrong char \u{{1b}}"#,
            "a".repeat(39)
        )
    );
}

#[test]
fn an_object_ref_is_encoded_as_the_canonical_instance_id() {
    let id = |object: ObjectRef| object.to_instance_id().map_err(|error| error.to_string());
    let sha1 = "0123456789abcdef0123456789abcdef01234567";

    assert_eq!(id(object_ref(2, SHA256_HEX)), Ok(SHA256_ID.to_owned()));
    assert_eq!(id(object_ref(1, sha1)), Ok(sha1.to_owned()));
    assert_eq!(
        id(object_ref(33, &"a".repeat(60))),
        Ok(format!("{}IQ", "q".repeat(40)))
    );
}

#[test]
fn an_object_ref_that_no_instance_id_can_encode_is_an_error() {
    let id = |object: ObjectRef| object.to_instance_id().map_err(|error| error.to_string());
    let refused = |text: &str| Err(text.to_owned());

    assert_eq!(
        id(object_ref(1, "aa")),
        refused("invalid SHA1 digest: expecting 40 chars, got 2")
    );
    // Truncated to one byte, it would be algorithm 44.
    assert_eq!(
        id(object_ref(300, "aa")),
        refused("unsupported unknown hash algorithm #300")
    );
    assert_eq!(id(object_ref(0, "aa")), refused("unspecified hash algo"));
    assert_eq!(id(object_ref(-1, "aa")), refused("bad negative hash algo"));
    assert_eq!(
        id(object_ref(2, "")),
        refused("invalid SHA256 hex digest: empty hex string")
    );
}

#[test]
fn an_object_ref_is_validated_with_the_references_errors() {
    let sha1 = "a".repeat(40);
    for (object, refusal) in [
        (object_ref(-1, &sha1), "bad negative hash algo"),
        (object_ref(0, &sha1), "unspecified hash algo"),
        (
            object_ref(1, ""),
            "invalid SHA1 hex digest: empty hex string",
        ),
        (
            object_ref(2, "abc"),
            "invalid SHA256 hex digest: uneven number of symbols in the hex string",
        ),
        (
            object_ref(2, "abcG"),
            r#"invalid SHA256 hex digest: bad lowercase hex string "abcG", wrong char G"#,
        ),
        (
            object_ref(1, SHA256_HEX),
            "invalid SHA1 digest: expecting 40 chars, got 64",
        ),
        (
            object_ref(2, &sha1),
            "invalid SHA256 digest: expecting 64 chars, got 40",
        ),
    ] {
        for mode in [Any, Known] {
            assert_eq!(validated(&object, mode), Err(refusal.to_owned()));
        }
    }
    for object in [object_ref(1, &sha1), object_ref(2, SHA256_HEX)] {
        assert_eq!(validated(&object, Any), Ok(()));
        assert_eq!(validated(&object, Known), Ok(()));
    }
}

#[test]
fn an_object_ref_with_an_unknown_hash_is_valid_only_in_mode_any() {
    let object = object_ref(3, "abcd");
    assert_eq!(validated(&object, Any), Ok(()));
    assert_eq!(
        validated(&object, Known),
        Err("unsupported unknown hash algorithm #3".to_owned())
    );
    assert_eq!(
        validated(&object_ref(3, "abc"), Any),
        Err("invalid 3 hex digest: uneven number of symbols in the hex string".to_owned())
    );
}

#[test]
fn a_missing_object_ref_is_an_error_and_an_empty_one_is_not() {
    let missing = ObjectRef::from_wire(None).expect_err("missing");
    assert_eq!(missing, ObjectRefError::Missing);
    assert_eq!(missing.to_string(), "the object ref is not provided");
    assert_eq!(
        ObjectRef::from_wire(Some(wire::cipd::ObjectRef::default())),
        Ok(ObjectRef::default())
    );
}

#[test]
fn only_the_canonical_encoding_is_an_instance_id() {
    let sha1 = "a".repeat(40);
    let sha256 = object_ref(2, SHA256_HEX);
    let (head, tail) = SHA256_ID.split_at(20);
    for (id, object) in [
        (format!("{SHA256_ID}\n"), sha256.clone()),
        (format!("{head}\r\n{tail}"), sha256),
        (format!("{}oB", "q".repeat(26)), object_ref(1, &sha1)),
    ] {
        assert_eq!(decoded(&id, Known), Ok(object));
        let refused = id.parse::<InstanceId>().map_err(|error| error.to_string());
        assert_eq!(
            refused,
            Err(format!(
                "not a valid package instance ID {id:?}: not the canonical encoding"
            ))
        );
    }
}

#[test]
fn trailing_bits_are_parsed_as_in_the_reference_and_never_written() {
    let canonical = format!("{}IQ", "q".repeat(40));
    let odd = format!("{}IR", "q".repeat(40));
    let object = decoded(&odd, Any);
    assert_eq!(object, decoded(&canonical, Any));
    assert_eq!(
        object.expect("it is parsed").to_instance_id(),
        Ok(canonical)
    );
}

#[test]
fn an_instance_id_is_displayed_as_it_was_parsed() {
    for id in [SHA256_ID, "0123456789abcdef0123456789abcdef01234567"] {
        let parsed: InstanceId = id.parse().expect("canonical");
        assert_eq!(parsed.to_string(), id);
        assert_eq!(format!("{parsed:?}"), id);
        assert_eq!(Ok(parsed.object_ref()), decoded(id, Known));
    }
}
