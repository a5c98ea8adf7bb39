//! A repository that says what its test has written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use admission_host::{
    Code, InstanceMetadata, ListMetadata, MetadataFuture, MetadataPage, Repository, Status,
};

type Script = dyn Fn(usize, ListMetadata) -> Result<MetadataPage, Status> + Send + Sync;

/// A repository that answers as its test says, and counts its calls.
#[derive(Clone)]
pub struct Scripted {
    script: Arc<Script>,
    calls: Arc<AtomicUsize>,
}

impl Scripted {
    /// Creates a repository that answers its calls, numbered from 0, as `script` does.
    pub fn new(
        script: impl Fn(usize, ListMetadata) -> Result<MetadataPage, Status> + Send + Sync + 'static,
    ) -> Self {
        Self {
            script: Arc::new(script),
            calls: Arc::default(),
        }
    }

    /// Creates a repository that is like the real service: it gives all `count` entries
    /// of an instance at once, whatever the page size, and knows no page tokens.
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

    /// Returns how often metadata was listed.
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
        // Without a fingerprint, which takes its time for large values.
        let mut entry = InstanceMetadata::default();
        entry.key = format!("k{n:02}");
        entry.value = vec![b'x'; size];
        entry
    };
    (0..count).map(entry).collect()
}
