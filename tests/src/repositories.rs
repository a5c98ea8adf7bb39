//! Repositories for tests.

mod gated;
mod scripted;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use admission_host::{
    InstanceMetadata, ListMetadata, MemoryRepository, MetadataFuture, MetadataPage, Pin,
    Repository, Status,
};

pub use gated::Gated;
pub use scripted::{Scripted, entries};

/// A repository in memory that counts its calls.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    repository: MemoryRepository,
    calls: Arc<AtomicUsize>,
}

impl Counted {
    /// Creates a repository in which `pin` has `entries` entries with the keys `k00`,
    /// `k01` and so on, in the order of a visit.
    #[must_use]
    pub fn with_entries(pin: &Pin, entries: usize) -> Self {
        let metadata = (0..entries).map(|n| InstanceMetadata::new(format!("k{n:02}"), "value"));
        let mut repository = MemoryRepository::new();
        repository.insert(pin, metadata.collect());
        Self {
            repository,
            calls: Arc::default(),
        }
    }

    /// Returns the number of calls so far.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Repository for Counted {
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.repository.list_metadata(request)
    }
}

/// A repository that answers every call with the same page and records the requests.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    page: MetadataPage,
    requests: Arc<Mutex<Vec<ListMetadata>>>,
}

impl Recorded {
    /// Creates a repository that answers with these entries.
    #[must_use]
    pub fn answering(metadata: Vec<InstanceMetadata>) -> Self {
        Self {
            page: MetadataPage::new(metadata, ""),
            requests: Arc::default(),
        }
    }

    /// Returns the requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<ListMetadata> {
        let requests = self.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Repository for Recorded {
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_> {
        let requests = self.requests.lock();
        requests
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
        Box::pin(std::future::ready(Ok(self.page.clone())))
    }
}

/// A repository that answers every call with the same error.
#[derive(Debug, Clone)]
pub struct Failing(pub Status);

impl Repository for Failing {
    fn list_metadata(&self, _: ListMetadata) -> MetadataFuture<'_> {
        Box::pin(std::future::ready(Err(self.0.clone())))
    }
}

/// A repository that never answers, and counts the running calls.
#[derive(Debug, Clone, Default)]
pub struct Stuck(Arc<AtomicUsize>);

impl Stuck {
    /// Returns the number of running calls.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Repository for Stuck {
    fn list_metadata(&self, _: ListMetadata) -> MetadataFuture<'_> {
        let under_way = UnderWay::new(&self.0);
        Box::pin(async move {
            let _under_way = under_way;
            std::future::pending().await
        })
    }
}

struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
