//! Sources of metadata about package instances.

mod json;
mod memory;
#[cfg(feature = "prpc")]
mod prpc;

use std::fmt;
use std::future::Future;
use std::pin::Pin as StdPin;

use admission_proto::{Code, HashMode, ObjectRef, Pin, Status, validate_package_name};

pub(crate) use admission_proto::MetadataPage;
pub use json::MetadataFileError;
pub use memory::MemoryRepository;
#[cfg(feature = "prpc")]
pub use prpc::{PrpcOptions, PrpcRepository, PrpcRepositoryError, TokenError};

/// The future of one page of metadata.
pub type MetadataFuture<'a> =
    StdPin<Box<dyn Future<Output = Result<MetadataPage, Status>> + Send + 'a>>;

/// A source of metadata, which serves the metadata calls of plugins.
///
/// An embedder may implement it. The host has at most 8 calls of one plugin in progress at
/// a time, and merges identical ones. It drops the future of a call when all checks that wait
/// for it are settled.
///
/// A page may be of any size: the host splits it into pages that fit a frame and have no
/// more entries than the plugin requested. It may request the same page again if a plugin
/// reads slowly.
pub trait Repository: Send + Sync {
    /// Lists metadata, the most recently attached first.
    ///
    /// # Errors
    ///
    /// The plugin gets the [`Status`] unchanged, within the limits of the wires: a code that
    /// gRPC does not define becomes UNKNOWN, a message is truncated to 2 KiB, and details of
    /// more than 4 KiB are dropped, with a note in the message.
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_>;
}

/// A request for metadata from a plugin. No field is validated.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct ListMetadata {
    /// URL of the service that has the package: the host's, or that of the check.
    pub service_url: String,
    /// Name of the package.
    pub package: String,
    /// The instance.
    pub instance: ObjectRef,
    /// Keys of the entries to list; empty for all.
    pub keys: Vec<String>,
    /// Maximum number of entries in the page; the repository chooses if it is 0 or negative.
    pub page_size: i32,
    /// Empty for the first page, otherwise the `next_page_token` of the page before.
    pub page_token: String,
}

impl ListMetadata {
    /// Parses package and instance.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT, as from the service.
    fn pin(&self) -> Result<Pin, Status> {
        let bad = |field: &str, error: &dyn fmt::Display| {
            Status::new(Code::INVALID_ARGUMENT, format!("bad '{field}': {error}"))
        };
        validate_package_name(&self.package).map_err(|error| bad("package", &error))?;
        let instance = &self.instance;
        instance
            .validate(HashMode::Known)
            .and_then(|()| instance.to_instance_id())
            .map_err(|error| bad("instance", &error))
            .and_then(|id| Pin::new(&self.package, &id).map_err(|error| bad("instance", &error)))
    }

    /// Returns the approximate number of bytes that it holds.
    pub(crate) fn size(&self) -> usize {
        let keys = self.keys.iter();
        let keys: usize = keys.map(|key| key.len() + size_of::<String>()).sum();
        size_of::<Self>()
            + self.service_url.len()
            + self.package.len()
            + self.instance.hex_digest.len()
            + self.page_token.len()
            + keys
    }
}
