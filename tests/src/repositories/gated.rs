//! A repository that answers when its test lets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use admission_host::{ListMetadata, MetadataFuture, Repository};
use tokio::sync::Semaphore;

use super::UnderWay;

/// A repository that holds back its answers until it is opened.
#[derive(Clone)]
pub struct Gated<R> {
    repository: R,
    /// Has no permits: whoever acquires one waits until it is closed.
    gate: Arc<Semaphore>,
    under_way: Arc<AtomicUsize>,
}

impl<R> Gated<R> {
    /// Creates a repository that will answer as `repository` does.
    pub fn new(repository: R) -> Self {
        Self {
            repository,
            gate: Arc::new(Semaphore::new(0)),
            under_way: Arc::default(),
        }
    }

    /// Lets every call be answered, now and later.
    pub fn open(&self) {
        self.gate.close();
    }

    /// Returns how many calls are under way.
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
            // An error is what opens the gate.
            let _ = self.gate.acquire().await;
            self.repository.list_metadata(request).await
        })
    }
}
