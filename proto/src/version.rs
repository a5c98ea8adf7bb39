//! Versions of packages: instance IDs, refs and tags.

use crate::text::quote;
use crate::{HashMode, ObjectRef};

/// Longest ref, in bytes.
const MAX_REF: usize = 256;

/// Longest tag with its colon, in bytes.
const MAX_TAG: usize = 400;

/// A string is not the version of a package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad version {}: not an instance ID, a ref or a tag", quote(.0))]
pub struct VersionError(String);

/// Checks the version of a package: an instance ID, a ref such as `latest`, or a tag
/// such as `git_revision:6b4aa314`.
///
/// # Errors
///
/// [`VersionError`] if it is none of these.
pub fn validate_version(version: &str) -> Result<(), VersionError> {
    let is_instance_id = ObjectRef::from_instance_id(version, HashMode::Any).is_ok();
    // A ref must not look like an instance ID. Both are accepted here.
    if is_instance_id || is_ref(version) || is_tag(version) {
        Ok(())
    } else {
        Err(VersionError(version.to_owned()))
    }
}

fn is_ref(version: &str) -> bool {
    (1..=MAX_REF).contains(&version.len())
        && version
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'/' | b'-'))
}

fn is_tag(version: &str) -> bool {
    let Some((key, value)) = version.split_once(':') else {
        return false;
    };
    version.len() <= MAX_TAG
        && !key.is_empty()
        && key
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        && !value.is_empty()
        && !value.starts_with(' ')
        && !value.ends_with(' ')
        && value.bytes().all(is_tag_value)
}

/// Returns whether `byte` may be in the value of a tag: printable ASCII without the
/// characters that are special in command lines and URLs.
fn is_tag_value(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !br##"!"#%&'?[]^`|"##.contains(&byte)
}
