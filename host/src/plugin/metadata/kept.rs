//! A cache of pages of the repository of which the plugin has not got all entries.

use std::collections::BTreeSet;

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
    /// Each listing with the check that it is dropped with.
    by_check: BTreeSet<(CheckId, u64)>,
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
            by_check: BTreeSet::new(),
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
            && let Some((oldest, kept)) = self.listings.pop_lru()
        {
            self.forget(oldest, &kept);
        }
        self.bytes += bytes;
        self.by_check.extend(check.map(|check| (check, version)));
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
        if let Some(previous) = std::mem::replace(&mut kept.check, check) {
            self.by_check.remove(&(previous, place.version));
        }
        self.by_check
            .extend(check.map(|check| (check, place.version)));
        Some(page)
    }

    /// Drops the listings that `check` was the last to use.
    pub(super) fn end(&mut self, check: CheckId) {
        let of_check = self.by_check.range((check, 0)..=(check, u64::MAX));
        let versions: Vec<u64> = of_check.map(|&(_, version)| version).collect();
        for version in versions {
            self.remove(version);
        }
    }

    fn remove(&mut self, version: u64) {
        if let Some(kept) = self.listings.pop(&version) {
            self.forget(version, &kept);
        }
    }

    /// Removes a listing that was taken out of `listings` from the other fields.
    fn forget(&mut self, version: u64, kept: &Kept) {
        self.bytes -= kept.bytes;
        if let Some(check) = kept.check {
            self.by_check.remove(&(check, version));
        }
    }
}

#[cfg(test)]
mod tests;
