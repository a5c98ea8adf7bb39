//! The messages that users see, as plain Rust types beside their wire forms.

use std::time::SystemTime;

use crate::{ObjectRef, wire};

/// One question to a policy: may this package instance be deployed?
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Admission {
    /// Opaque and unique; means nothing once the check is settled.
    pub admission_id: String,
    /// URL of the CIPD service that has the package, without a trailing slash.
    pub service_url: String,
    /// Name of the package.
    pub package: String,
    /// The instance to be deployed.
    pub instance: ObjectRef,
}

/// A metadata entry attached to a package instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct InstanceMetadata {
    /// What the entry is about; several entries may share it.
    pub key: String,
    /// Contents, at most 512 KiB.
    pub value: Vec<u8>,
    /// MIME type of the value, as given when it was attached.
    pub content_type: String,
    /// Identifies key and value: see [`fingerprint`](crate::fingerprint).
    pub fingerprint: String,
    /// Who attached it, as `user:...`.
    pub attached_by: String,
    /// When it was attached.
    pub attached_ts: Option<SystemTime>,
}

impl Admission {
    /// Reads the wire form; a missing instance reads as an unspecified one.
    #[must_use]
    pub fn from_wire(admission: wire::plugin::Admission) -> Self {
        Self {
            admission_id: admission.admission_id,
            service_url: admission.service_url,
            package: admission.package,
            instance: admission.instance.map(ObjectRef::from).unwrap_or_default(),
        }
    }
}

impl InstanceMetadata {
    /// Creates an entry with the fingerprint of `key` and `value`; the rest is empty.
    #[must_use]
    pub fn new(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        let (key, value) = (key.into(), value.into());
        Self {
            fingerprint: crate::fingerprint(&key, &value),
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
