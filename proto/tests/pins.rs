//! Pins, package names and versions are accepted and rejected as in the reference.

use admission_proto::{Pin, validate_package_name, validate_version};

const ID: &str = "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";

fn refusal<T>(result: Result<T, impl ToString>) -> Option<String> {
    result.err().map(|error| error.to_string())
}

#[test]
fn valid_package_names_are_accepted() {
    for name in [
        "a",
        "good/name",
        "123-_/also/good/name",
        "good.name/.name/..name",
        "a/...b",
    ] {
        assert_eq!(refusal(validate_package_name(name)), None);
    }
    let long = format!("{}a", "a/".repeat(5_000));
    assert_eq!(refusal(validate_package_name(&long)), None);
}

#[test]
fn invalid_package_names_are_rejected_with_the_references_errors() {
    for name in [
        "",
        "/",
        "BAD/name",
        "bad//name",
        "bad/name/",
        "/bad/name",
        "bad/name\nyeah",
        "bad/name\n",
        "a+b",
        "a b",
        "a\\b",
        "na\u{ef}ve",
    ] {
        assert_eq!(
            refusal(validate_package_name(name)),
            Some(format!(
                r#"invalid package name {name:?}: must be a slash-separated path where each component matches "[a-z0-9_\-\.]+""#
            ))
        );
    }
    for name in [".", "./name", "name/../name", "..."] {
        assert_eq!(
            refusal(validate_package_name(name)),
            Some(format!(
                "invalid package name {name:?}: dots-only path components are forbidden"
            ))
        );
    }
}

#[test]
fn a_pin_is_parsed_and_displayed_as_package_and_instance_id() {
    let text = format!("tools/x/linux-amd64:{ID}");
    let pin: Pin = text.parse().expect("a pin");
    assert_eq!(pin.package(), "tools/x/linux-amd64");
    assert_eq!(pin.instance().to_string(), ID);
    assert_eq!(pin.to_string(), text);
    assert_eq!(Pin::new("tools/x/linux-amd64", ID), Ok(pin));
}

#[test]
fn a_pins_package_name_is_checked_before_its_instance_id() {
    assert_eq!(
        refusal(Pin::new("BAD", "bad")),
        refusal(validate_package_name("BAD"))
    );
    assert_eq!(
        refusal(Pin::new("good", "bad")),
        Some(
            r#"not a valid package instance ID "bad": not a valid size for an encoded digest"#
                .to_owned()
        )
    );
}

#[test]
fn a_pin_has_a_known_hash_in_the_canonical_encoding() {
    let unknown = "B7r75joOfFfFcq7fHCKAIrU34oeFAT174Bf8eHMajMUD";
    assert_eq!(
        refusal(Pin::new("good", unknown)),
        Some(format!(
            r#"not a valid package instance ID "{unknown}": unsupported unknown hash algorithm #3"#
        ))
    );
    let odd = format!("{}oB", "q".repeat(26));
    assert_eq!(
        refusal(Pin::new("good", &odd)),
        Some(format!(
            r#"not a valid package instance ID "{odd}": not the canonical encoding"#
        ))
    );
}

#[test]
fn a_pin_without_a_colon_is_rejected() {
    assert_eq!(
        refusal("good/name".parse::<Pin>()),
        Some(r#"not a pin "good/name": must be package:instance_id"#.to_owned())
    );
}

#[test]
fn an_instance_id_a_ref_or_a_tag_is_a_version() {
    let long_ref = "r".repeat(256);
    let long_tag = format!("k:{}", "v".repeat(398));
    for version in [
        ID,
        "latest",
        "refs/heads/main",
        "a.b_c-d/0",
        &long_ref,
        "git_revision:6b4aa314771569029ce32f5bcb2924120bd06b86",
        "re_client_version:0.1.2@with: all-of (this) $ * + , ; < = > \\ _ {} ~",
        "k:v:w",
        &long_tag,
    ] {
        assert_eq!(refusal(validate_version(version)), None);
    }
}

#[test]
fn any_other_text_is_not_a_version() {
    let long_ref = "r".repeat(257);
    let long_tag = format!("k:{}", "v".repeat(399));
    for version in [
        "",
        "Latest",
        "a b",
        "latest\n",
        &long_ref,
        ":v",
        "k:",
        "k: v",
        "k:v ",
        "K:v",
        "k:\t",
        "k:na\u{ef}ve",
        "k:v\n",
        &long_tag,
    ] {
        assert_eq!(
            refusal(validate_version(version)),
            Some(format!(
                "bad version {version:?}: not an instance ID, a ref or a tag"
            ))
        );
    }
    for special in r##"!"#%&'?[]^`|"##.chars() {
        assert!(validate_version(&format!("k:a{special}b")).is_err());
    }
}
