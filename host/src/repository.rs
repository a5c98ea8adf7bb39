//! Where the metadata of package instances comes from.

mod json;
mod memory;
mod prpc;

use std::fmt;
use std::future::Future;
use std::pin::Pin as StdPin;

use admission_proto::{
    Code, HashMode, InstanceMetadata, ObjectRef, Pin, Status, validate_package_name,
};

pub use json::{JsonRepository, JsonRepositoryError};
pub use memory::MemoryRepository;
pub use prpc::{PrpcOptions, PrpcRepository, PrpcRepositoryError, TokenError};

/// The future of one page of metadata.
pub type MetadataFuture<'a> =
    StdPin<Box<dyn Future<Output = Result<MetadataPage, Status>> + Send + 'a>>;

/// Answers what a plugin asks about the instance that it judges.
///
/// Implemented by whoever embeds the host. At most 8 calls of one plugin are under
/// way at once, none of them the same as another; a call is dropped when the checks
/// that wait for it have ended.
///
/// A page may be of any size: the host hands it on in pages that fit a frame and have
/// no more entries than the plugin wants. When a plugin takes its time over that, the
/// repository may be asked for the same page again.
pub trait Repository: Send + Sync {
    /// Lists metadata, the most recently attached first.
    ///
    /// # Errors
    ///
    /// The plugin gets the [`Status`] as it is, within what every wire can say: a code that
    /// gRPC does not define is UNKNOWN, a message is cut after 2 KiB, and details of more
    /// than 4 KiB are dropped, which the message then says.
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_>;
}

/// What a plugin asks for. Nothing in it is validated.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct ListMetadata {
    /// The service that has the package: the host's, or the check's own.
    pub service_url: String,
    /// Name of the package.
    pub package: String,
    /// The instance.
    pub instance: ObjectRef,
    /// Which entries; empty asks for all.
    pub keys: Vec<String>,
    /// Most entries in the answer; zero or less leaves it to the repository.
    pub page_size: i32,
    /// Where to go on: empty, or the `next_page_token` of the page before.
    pub page_token: String,
}

impl ListMetadata {
    /// Reads what is asked about, and refuses what the service would refuse.
    fn pin(&self) -> Result<Pin, Status> {
        let bad = |what: &str, error: &dyn fmt::Display| {
            Status::new(Code::INVALID_ARGUMENT, format!("bad '{what}': {error}"))
        };
        validate_package_name(&self.package).map_err(|error| bad("package", &error))?;
        let instance = &self.instance;
        instance
            .validate(HashMode::Known)
            .and_then(|()| instance.to_instance_id())
            .map_err(|error| bad("instance", &error))
            .and_then(|id| Pin::new(&self.package, &id).map_err(|error| bad("instance", &error)))
    }

    /// Estimates what it holds, in bytes.
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

/// One page of metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MetadataPage {
    /// The entries, the most recently attached first.
    pub metadata: Vec<InstanceMetadata>,
    /// Asks for the page that follows; empty on the last one.
    pub next_page_token: String,
}

impl MetadataPage {
    /// Creates a page; an empty token makes it the last one.
    #[must_use]
    pub fn new(metadata: Vec<InstanceMetadata>, next_page_token: impl Into<String>) -> Self {
        Self {
            metadata,
            next_page_token: next_page_token.into(),
        }
    }
}
