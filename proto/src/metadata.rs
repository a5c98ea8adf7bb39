//! Metadata of package instances, and the limits that the reference sets.

use std::time::SystemTime;

use mediatype::{MediaType, MediaTypeError};
use sha2::{Digest as _, Sha256};

use crate::text::quote;
use crate::{hex, wire};

/// Longest metadata value, in bytes.
pub const MAX_METADATA_VALUE: usize = 512 << 10;

/// Longest metadata key and longest content type, in bytes.
const MAX_SHORT: usize = 400;

/// A metadata entry attached to a package instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct InstanceMetadata {
    /// The subject of the entry. Several entries may have the same key.
    pub key: String,
    /// Contents, at most 512 KiB.
    pub value: Vec<u8>,
    /// MIME type of the value, as the author of the entry gave it.
    pub content_type: String,
    /// Identifies key and value: see [`fingerprint`].
    pub fingerprint: String,
    /// The author of the entry, as `user:...`.
    pub attached_by: String,
    /// When the entry was attached.
    pub attached_ts: Option<SystemTime>,
}

impl InstanceMetadata {
    /// Creates an entry with the fingerprint of `key` and `value`; the rest is empty.
    #[must_use]
    pub fn new(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        let (key, value) = (key.into(), value.into());
        Self {
            fingerprint: fingerprint(&key, &value),
            key,
            value,
            ..Self::default()
        }
    }
}

impl From<wire::cipd::InstanceMetadata> for InstanceMetadata {
    fn from(entry: wire::cipd::InstanceMetadata) -> Self {
        Self {
            key: entry.key,
            value: entry.value,
            content_type: entry.content_type,
            fingerprint: entry.fingerprint,
            attached_by: entry.attached_by,
            attached_ts: entry.attached_ts.and_then(|ts| ts.try_into().ok()),
        }
    }
}

impl From<InstanceMetadata> for wire::cipd::InstanceMetadata {
    fn from(entry: InstanceMetadata) -> Self {
        Self {
            key: entry.key,
            value: entry.value,
            content_type: entry.content_type,
            fingerprint: entry.fingerprint,
            attached_by: entry.attached_by,
            attached_ts: entry.attached_ts.map(wire::Timestamp::from),
        }
    }
}

/// A page of the metadata of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MetadataPage {
    /// The entries, the most recently attached first.
    pub metadata: Vec<InstanceMetadata>,
    /// The page token of the next page; empty on the last page.
    pub next_page_token: String,
}

impl MetadataPage {
    /// Creates a page. It is the last one if `next_page_token` is empty.
    #[must_use]
    pub fn new(metadata: Vec<InstanceMetadata>, next_page_token: impl Into<String>) -> Self {
        Self {
            metadata,
            next_page_token: next_page_token.into(),
        }
    }
}

impl From<wire::plugin::ListMetadataResponse> for MetadataPage {
    fn from(page: wire::plugin::ListMetadataResponse) -> Self {
        let entries = page.metadata.into_iter().map(InstanceMetadata::from);
        Self::new(entries.collect(), page.next_page_token)
    }
}

impl From<MetadataPage> for wire::plugin::ListMetadataResponse {
    fn from(page: MetadataPage) -> Self {
        let entries = page.metadata.into_iter();
        Self {
            metadata: entries.map(wire::cipd::InstanceMetadata::from).collect(),
            next_page_token: page.next_page_token,
        }
    }
}

/// An error in a metadata entry. The texts are the reference's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The key is too long.
    #[error("invalid metadata key {}: too long, should be <=400 chars", quote(.0))]
    KeyTooLong(String),
    /// The key is empty or has a forbidden character.
    #[error(r#"invalid metadata key {}: should match "^[a-z0-9_\\-]+$""#, quote(.0))]
    Key(String),
    /// The value is too long. Holds its length in bytes.
    #[error("the metadata value is too long: should be <=524288 bytes, got {0}")]
    ValueTooLong(usize),
    /// The content type is too long. Holds its length in bytes.
    #[error("the content type is too long: should be <=400 bytes, got {0}")]
    ContentTypeTooLong(usize),
    /// The content type cannot be parsed.
    #[error("bad content type {}", quote(given))]
    #[non_exhaustive]
    ContentType {
        /// The content type.
        given: String,
        /// The error in it.
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
    let is_legal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
    if key.len() > MAX_SHORT {
        Err(MetadataError::KeyTooLong(key.to_owned()))
    } else if key.is_empty() || !key.chars().all(is_legal) {
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

/// Checks a content type: empty, or a media type of at most 400 bytes.
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

/// Returns the fingerprint of an entry: the first 16 bytes of `SHA256(key + ":" + value)`, in
/// lowercase hex.
#[must_use]
pub fn fingerprint(key: &str, value: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(key);
    hash.update(":");
    hash.update(value);
    hex::encode(&hash.finalize()[..16])
}
