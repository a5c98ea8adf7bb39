//! A repository whose replies a test computes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use admission_host::{
    Code, InstanceMetadata, ListMetadata, MetadataFuture, MetadataPage, Repository, Status,
};

type Script = dyn Fn(usize, ListMetadata) -> Result<MetadataPage, Status> + Send + Sync;

/// A repository that replies with the result of a function, and counts its calls.
#[derive(Clone)]
pub struct Scripted {
    script: Arc<Script>,
    calls: Arc<AtomicUsize>,
}

impl Scripted {
    /// Creates a repository that replies with the result of `script`, which gets the number of
    /// the call, from 0.
    pub fn new(
        script: impl Fn(usize, ListMetadata) -> Result<MetadataPage, Status> + Send + Sync + 'static,
    ) -> Self {
        Self {
            script: Arc::new(script),
            calls: Arc::default(),
        }
    }

    /// Creates a repository that behaves like the real service: it ignores the page size,
    /// returns all `count` entries at once and supports no page tokens.
    #[must_use]
    pub fn at_once(count: usize, size: usize) -> Self {
        Self::new(move |_, request| {
            if request.page_token.is_empty() {
                return Ok(MetadataPage::new(entries(count, size), ""));
            }
            Err(Status::new(
                Code::INVALID_ARGUMENT,
                "bad 'page_token': not supported yet",
            ))
        })
    }

    /// Returns the number of calls so far.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Repository for Scripted {
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready((self.script)(call, request)))
    }
}

/// Returns entries with the keys `k00`, `k01` and so on and values of `size` bytes.
#[must_use]
pub fn entries(count: usize, size: usize) -> Vec<InstanceMetadata> {
    let entry = |n| {
        // Without a fingerprint, because computing it is slow for large values.
        let mut entry = InstanceMetadata::default();
        entry.key = format!("k{n:02}");
        entry.value = vec![b'x'; size];
        entry
    };
    (0..count).map(entry).collect()
}
