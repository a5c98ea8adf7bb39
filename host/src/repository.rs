//! Where the metadata of package instances comes from.

mod json;
mod memory;

use std::future::Future;
use std::pin::Pin as StdPin;

use admission_proto::{InstanceMetadata, ObjectRef, Status};

pub use json::{JsonRepository, JsonRepositoryError};
pub use memory::MemoryRepository;

/// The future of one page of metadata.
pub type Listing<'a> = StdPin<Box<dyn Future<Output = Result<MetadataPage, Status>> + Send + 'a>>;

/// Answers what a plugin asks about the instance that it judges.
///
/// Implemented by whoever embeds the host. At most 8 calls of one plugin are under
/// way at once; a call is dropped when its check ends.
pub trait Repository: Send + Sync {
    /// Lists metadata, the most recently attached first.
    ///
    /// # Errors
    ///
    /// The plugin gets the [`Status`] as it is.
    fn list_metadata(&self, request: ListMetadata) -> Listing<'_>;
}

/// What a plugin asks for. Nothing in it is validated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ListMetadata {
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
