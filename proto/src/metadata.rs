//! What a metadata entry may look like.

use mediatype::{MediaType, MediaTypeError};
use sha2::{Digest as _, Sha256};

use crate::object_ref::to_hex;
use crate::quote::quote;

/// Longest metadata value, in bytes.
pub const MAX_METADATA_VALUE: usize = 512 << 10;

/// Longest metadata key and longest content type, in bytes.
const MAX_SHORT: usize = 400;

/// What is wrong with a metadata entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The key is too long.
    #[error("invalid metadata key {}: too long, should be <=400 chars", quote(.0))]
    KeyTooLong(String),
    /// The key has a character that none may have, or is empty.
    #[error(r#"invalid metadata key {}: should match "^[a-z0-9_\\-]+$""#, quote(.0))]
    Key(String),
    /// The value is too long.
    #[error("the metadata value is too long: should be <=524288 bytes, got {0}")]
    ValueTooLong(usize),
    /// The content type is too long.
    #[error("the content type is too long: should be <=400 bytes, got {0}")]
    ContentTypeTooLong(usize),
    /// The content type cannot be parsed.
    #[error("bad content type {}", quote(given))]
    ContentType {
        /// The content type.
        given: String,
        /// What is wrong with it.
        #[source]
        source: MediaTypeError,
    },
}

/// Checks a metadata key: at most 400 bytes of `[a-z0-9_\-]`.
///
/// # Errors
///
/// [`MetadataError::KeyTooLong`] or [`MetadataError::Key`].
pub fn validate_metadata_key(key: &str) -> Result<(), MetadataError> {
    let legal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
    if key.len() > MAX_SHORT {
        Err(MetadataError::KeyTooLong(key.to_owned()))
    } else if key.is_empty() || !key.chars().all(legal) {
        Err(MetadataError::Key(key.to_owned()))
    } else {
        Ok(())
    }
}

/// Checks the length of a metadata value: at most [`MAX_METADATA_VALUE`].
///
/// # Errors
///
/// [`MetadataError::ValueTooLong`].
pub fn validate_metadata_value(value: &[u8]) -> Result<(), MetadataError> {
    if value.len() > MAX_METADATA_VALUE {
        return Err(MetadataError::ValueTooLong(value.len()));
    }
    Ok(())
}

/// Checks a content type: nothing, or a media type of at most 400 bytes.
///
/// # Errors
///
/// [`MetadataError::ContentTypeTooLong`] or [`MetadataError::ContentType`].
pub fn validate_content_type(content_type: &str) -> Result<(), MetadataError> {
    if content_type.is_empty() {
        return Ok(());
    }
    if content_type.len() > MAX_SHORT {
        return Err(MetadataError::ContentTypeTooLong(content_type.len()));
    }
    match MediaType::parse(content_type) {
        Ok(_) => Ok(()),
        Err(source) => Err(MetadataError::ContentType {
            given: content_type.to_owned(),
            source,
        }),
    }
}

/// Returns the fingerprint that identifies an entry: the first 16 bytes of
/// `SHA256(key + ":" + value)`, in lowercase hex.
#[must_use]
pub fn fingerprint(key: &str, value: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(key);
    hash.update(":");
    hash.update(value);
    to_hex(&hash.finalize()[..16])
}
