//! What is left of the repository's pages, for the plugin to go on in.

use std::collections::{BTreeSet, HashMap};

use super::fetches::Waiting;
use super::paging::{Listing, Pager};
use crate::plugin::checks::CheckId;
use crate::repository::{ListMetadata, MetadataPage};

/// Most bytes kept for one plugin: the largest answer that the real service gives.
const MAX_KEPT: usize = 32 << 20;

/// The rests that are kept for one plugin; beyond [`MAX_KEPT`], the least recently
/// used ones are dropped.
#[derive(Default)]
pub(super) struct Rests {
    by_version: HashMap<u64, Rest>,
    /// The versions, the least recently used first.
    by_use: BTreeSet<(u64, u64)>,
    by_check: BTreeSet<(CheckId, u64)>,
    uses: u64,
    /// Bytes in all of them.
    bytes: usize,
}

struct Rest {
    listing: Listing,
    bytes: usize,
    /// The check that has used it last, and with which it is dropped; without one it is
    /// dropped for others only.
    check: Option<CheckId>,
    used: u64,
}

impl Rests {
    /// Keeps what is left of a page after the first `seen` entries.
    pub(super) fn keep(&mut self, mut listing: Listing, seen: usize, check: Option<CheckId>) {
        self.remove(listing.version());
        let Some(bytes) = listing.shrink(seen, MAX_KEPT) else {
            return;
        };
        while self.bytes + bytes > MAX_KEPT
            && let Some(&(_, oldest)) = self.by_use.first()
        {
            self.remove(oldest);
        }
        self.insert(listing, bytes, check);
    }

    /// Returns the page that a call goes on with, if it is kept.
    pub(super) fn page(
        &mut self,
        pager: &Pager,
        request: &ListMetadata,
        call: &Waiting,
    ) -> Option<MetadataPage> {
        let place = call.place?;
        let rest = self.by_version.get(&place.version)?;
        if !rest.listing.has(request, place) {
            return None;
        }
        let (page, _) = pager.page(&rest.listing, Some(place)).ok()?;
        let Rest { listing, bytes, .. } = self.remove(place.version)?;
        self.insert(listing, bytes, call.check);
        Some(page)
    }

    /// Drops what a check that was settled has used last.
    pub(super) fn end(&mut self, check: CheckId) {
        let of_check = self.by_check.range((check, 0)..=(check, u64::MAX));
        let versions: Vec<u64> = of_check.map(|&(_, version)| version).collect();
        for version in versions {
            self.remove(version);
        }
    }

    /// Returns the checks for which anything is kept.
    pub(super) fn checks(&self) -> impl Iterator<Item = CheckId> {
        self.by_check.iter().map(|&(check, _)| check)
    }

    fn insert(&mut self, listing: Listing, bytes: usize, check: Option<CheckId>) {
        self.uses += 1;
        let version = listing.version();
        let rest = Rest {
            listing,
            bytes,
            check,
            used: self.uses,
        };
        self.bytes += bytes;
        self.by_use.insert((rest.used, version));
        self.by_check.extend(check.map(|check| (check, version)));
        self.by_version.insert(version, rest);
    }

    fn remove(&mut self, version: u64) -> Option<Rest> {
        let rest = self.by_version.remove(&version)?;
        self.by_use.remove(&(rest.used, version));
        if let Some(check) = rest.check {
            self.by_check.remove(&(check, version));
        }
        self.bytes -= rest.bytes;
        Some(rest)
    }
}

#[cfg(test)]
mod tests;
