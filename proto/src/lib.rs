//! Messages, frames and pins of CIPD admission plugins.
//!
//! This crate performs no I/O and compiles for every target. Hosts and plugins
//! exchange the messages of [`wire`] as the length-delimited frames of [`frame`];
//! everything else here is what their users see: a [`Pin`] to be judged, the
//! [`Admission`] a policy gets, the [`InstanceMetadata`] it may ask for and the
//! [`Status`] it answers with.

pub mod frame;
mod message;
mod metadata;
mod object_ref;
mod pin;
mod quote;
mod status;
mod version;
pub mod wire;

pub use message::{Admission, InstanceMetadata};
pub use metadata::{
    MAX_METADATA_VALUE, MetadataError, fingerprint, validate_content_type, validate_metadata_key,
    validate_metadata_value,
};
pub use object_ref::{HashAlgo, HashMode, HexError, InstanceIdError, ObjectRef, ObjectRefError};
pub use pin::{InstanceId, Pin, PinError, validate_package_name};
pub use quote::{escape, quote, quote_bytes};
pub use status::{Code, Detail, Status};
pub use version::{VersionError, validate_version};
