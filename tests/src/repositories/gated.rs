//! A repository whose replies a test releases.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use admission_host::{ListMetadata, MetadataFuture, Repository};
use tokio::sync::Semaphore;

use super::UnderWay;

/// A repository that replies only after it is opened.
#[derive(Clone)]
pub struct Gated<R> {
    repository: R,
    /// Has no permits, so acquiring one waits until the semaphore is closed.
    gate: Arc<Semaphore>,
    under_way: Arc<AtomicUsize>,
}

impl<R> Gated<R> {
    /// Creates a repository that replies like `repository`.
    pub fn new(repository: R) -> Self {
        Self {
            repository,
            gate: Arc::new(Semaphore::new(0)),
            under_way: Arc::default(),
        }
    }

    /// Releases every reply, now and later.
    pub fn open(&self) {
        self.gate.close();
    }

    /// Returns the number of running calls.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }
}

impl<R: Repository> Repository for Gated<R> {
    fn list_metadata(&self, request: ListMetadata) -> MetadataFuture<'_> {
        let under_way = UnderWay::new(&self.under_way);
        Box::pin(async move {
            let _under_way = under_way;
            // An error means that the gate is open: opening it closes the semaphore.
            let _ = self.gate.acquire().await;
            self.repository.list_metadata(request).await
        })
    }
}
