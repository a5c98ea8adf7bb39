//! Where plugins get metadata from.

use std::future::ready;
use std::path::Path;
use std::sync::Arc;

use admission_host::{
    Code, JsonRepository, JsonRepositoryError, ListMetadata, Listing, Repository, Status,
};

/// Opens the metadata `file`; without one every call for metadata says what is missing.
pub(crate) fn open(file: Option<&Path>) -> Result<Arc<dyn Repository>, JsonRepositoryError> {
    Ok(match file {
        Some(file) => Arc::new(JsonRepository::from_file(file)?),
        None => Arc::new(NoRepository),
    })
}

/// Stands for the repository that nobody named.
struct NoRepository;

impl Repository for NoRepository {
    fn list_metadata(&self, _: ListMetadata) -> Listing<'_> {
        let text = "no repository: pass --metadata FILE";
        Box::pin(ready(Err(Status::new(Code::UNAVAILABLE, text))))
    }
}
