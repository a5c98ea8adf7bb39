//! Messages, frames and pins of CIPD admission plugins.
//!
//! A package client asks an admission plugin whether it may deploy a [`Pin`]. This crate has
//! what both sides share: the messages of [`wire`], the [`frame`]s that carry them over stdin
//! and stdout, and plain Rust types for users: the [`Admission`] that a policy judges, the
//! [`InstanceMetadata`] that it may request and the [`Status`] that it returns.
//!
//! The crate performs no I/O and compiles for every target.
//!
//! *The reference* is CIPD's own implementation in Go, [`go.chromium.org/luci/cipd`]. Names,
//! field numbers and error texts follow it.
//!
//! [`go.chromium.org/luci/cipd`]: https://pkg.go.dev/go.chromium.org/luci/cipd

mod admission;
pub mod frame;
pub mod hex;
mod instance_id;
mod log_level;
mod metadata;
mod pin;
mod service_url;
mod status;
mod text;
mod version;
pub mod wire;

pub use admission::Admission;
pub use hex::HexError;
pub use instance_id::{HashAlgo, HashMode, InstanceId, InstanceIdError, ObjectRef, ObjectRefError};
pub use log_level::LogLevel;
pub use metadata::{
    InstanceMetadata, MAX_METADATA_VALUE, MetadataError, MetadataPage, fingerprint,
    validate_content_type, validate_metadata_key, validate_metadata_value,
};
pub use pin::{Pin, PinError, validate_package_name};
pub use service_url::{ServiceUrl, ServiceUrlError};
pub use status::{Code, Detail, Status};
pub use text::{escape, quote, quote_bytes, truncate};
pub use version::{VersionError, validate_version};
pub use wire::Wire;
