//! A cache of pages of the repository of which the plugin has not got all entries.

use lru::LruCache;

use super::pages::{Listing, Pager, Place};
use crate::plugin::check_cache::CheckId;
use crate::repository::{ListMetadata, MetadataPage};

/// Largest size of one plugin's cache, in bytes: the largest response of the service.
const MAX_KEPT: usize = 32 << 20;

/// The cached listings of one plugin, by version. Above [`MAX_KEPT`], the least recently used
/// are evicted.
pub(super) struct KeptListings {
    listings: LruCache<u64, Kept>,
    /// Total size of the listings.
    bytes: usize,
}

struct Kept {
    listing: Listing,
    bytes: usize,
    /// The last check that used the listing. The listing is dropped with this check.
    check: Option<CheckId>,
}

impl KeptListings {
    pub(super) fn new() -> Self {
        Self {
            listings: LruCache::unbounded(),
            bytes: 0,
        }
    }

    /// Caches the entries of a listing after the first `seen`, for a call of `check`.
    pub(super) fn keep(&mut self, mut listing: Listing, seen: usize, check: Option<CheckId>) {
        let version = listing.version();
        self.remove(version);
        let Some(bytes) = listing.shrink(seen, MAX_KEPT) else {
            return;
        };
        while self.bytes + bytes > MAX_KEPT
            && let Some((_, oldest)) = self.listings.pop_lru()
        {
            self.bytes -= oldest.bytes;
        }
        self.bytes += bytes;
        let kept = Kept {
            listing,
            bytes,
            check,
        };
        self.listings.put(version, kept);
    }

    /// Returns the page at `place`, if it is cached, for a call of `check`.
    pub(super) fn page(
        &mut self,
        pager: &Pager,
        request: &ListMetadata,
        place: Place,
        check: Option<CheckId>,
    ) -> Option<MetadataPage> {
        let kept = self.listings.get_mut(&place.version)?;
        if !kept.listing.has(request, place) {
            return None;
        }
        let (page, _) = pager.page(&kept.listing, Some(place)).ok()?;
        kept.check = check;
        Some(page)
    }

    /// Drops a listing if `check` was the last to use it.
    pub(super) fn end(&mut self, version: u64, check: CheckId) {
        let kept = self.listings.peek(&version);
        if kept.is_some_and(|kept| kept.check == Some(check)) {
            self.remove(version);
        }
    }

    fn remove(&mut self, version: u64) {
        if let Some(kept) = self.listings.pop(&version) {
            self.bytes -= kept.bytes;
        }
    }
}

#[cfg(test)]
mod tests;
