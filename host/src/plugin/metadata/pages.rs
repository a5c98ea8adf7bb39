//! Pages that fit a frame and the page size, and the page tokens of the host.
//!
//! The real service ignores the page size, returns everything at once and has no page
//! tokens. So the host cuts the repository's page. Its own tokens contain all that is needed
//! to find the place again in a fresh answer of the repository: a listing that is kept is
//! only a cache.

use std::hash::{BuildHasher as _, RandomState};

use admission_proto::{Code, InstanceMetadata, Status, frame, quote_bytes};

use crate::repository::{ListMetadata, MetadataPage};

/// Most bytes of entries in one page, encoded. Leaves half a MiB of the frame for the rest,
/// which is mostly the token.
const MAX_PAGE: usize = frame::PLUGIN_LIMIT - (512 << 10);

/// Cuts pages, and makes and reads the page tokens of one plugin.
pub(super) struct Pager {
    /// Every token of the host begins with it. It is random, so no token of the repository
    /// does.
    mark: String,
    /// Random keys, so that a plugin cannot construct equal versions.
    keys: RandomState,
}

/// A place in a page of the repository, as a token of the host names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The page of which the plugin has seen the beginning.
    pub(super) version: u64,
    /// How many entries the plugin has seen.
    offset: usize,
}

/// A page of the repository, or the part of it that is kept.
pub(super) struct Listing {
    /// The request that it answers.
    request: ListMetadata,
    /// Hash of the request and of all entries of the page.
    version: u64,
    /// Index in the page of the first of `entries`.
    start: usize,
    entries: Vec<InstanceMetadata>,
    /// How many entries the page has.
    total: usize,
    /// The repository's token for the page that follows.
    next_page_token: String,
}

impl Pager {
    /// Creates a pager whose tokens contain `nonce`, a random number.
    pub(super) fn new(nonce: u128) -> Self {
        Self {
            mark: format!("host-{nonce:032x}-"),
            keys: RandomState::new(),
        }
    }

    /// Returns the place that the request's token names, if it is a token of the host, and
    /// replaces it by the repository's token for the page in which the place is.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for a malformed token of the host.
    pub(super) fn locate(&self, request: &mut ListMetadata) -> Result<Option<Place>, Status> {
        let Some(token) = request.page_token.strip_prefix(&self.mark) else {
            return Ok(None);
        };
        let Some((place, token)) = read_token(token) else {
            return Err(bad_token());
        };
        request.page_token = token.to_owned();
        Ok(Some(place))
    }

    /// Creates the listing of the repository's answer to `request`.
    ///
    /// # Errors
    ///
    /// INTERNAL if the token of the next page is the token of this page: the pages would
    /// have no end.
    pub(super) fn open(
        &self,
        request: ListMetadata,
        page: MetadataPage,
    ) -> Result<Listing, Status> {
        if !page.next_page_token.is_empty() && page.next_page_token == request.page_token {
            let token = quote_bytes(page.next_page_token.as_bytes());
            let text = format!("the repository repeats the page token {token}");
            return Err(Status::new(Code::INTERNAL, text));
        }
        Ok(Listing {
            version: self.version(&request, &page.metadata),
            request,
            start: 0,
            total: page.metadata.len(),
            entries: page.metadata,
            next_page_token: page.next_page_token,
        })
    }

    /// Returns the plugin's page at `place`, or the first one, and the index of the entry
    /// that follows it.
    ///
    /// # Errors
    ///
    /// ABORTED if the repository's page has changed since the plugin has seen its beginning:
    /// entries could be skipped or repeated. INVALID_ARGUMENT for a place that no token of
    /// the host names.
    pub(super) fn page(
        &self,
        listing: &Listing,
        place: Option<Place>,
    ) -> Result<(MetadataPage, usize), Status> {
        let offset = match place {
            None => 0,
            Some(place) if place.version != listing.version => return Err(changed(listing)),
            Some(place) if place.offset >= listing.total => return Err(bad_token()),
            Some(place) => place.offset,
        };
        let seen = offset - listing.start;
        let entries = &listing.entries[seen..];
        let entries = &entries[..page_length(entries, listing.request.page_size)];
        let end = offset + entries.len();
        let token = if end < listing.total {
            self.token(listing, end)
        } else {
            listing.next_page_token.clone()
        };
        Ok((MetadataPage::new(entries.to_vec(), token), end))
    }

    fn version(&self, request: &ListMetadata, entries: &[InstanceMetadata]) -> u64 {
        let ListMetadata {
            service_url,
            package,
            instance,
            keys,
            page_token,
            // It does not change which entries the page has.
            page_size: _,
        } = request;
        self.keys
            .hash_one((service_url, package, instance, keys, page_token, entries))
    }

    fn token(&self, listing: &Listing, offset: usize) -> String {
        let Listing {
            version, request, ..
        } = listing;
        let mark = &self.mark;
        format!("{mark}{version:x}-{offset:x}-{}", request.page_token)
    }
}

impl Listing {
    /// Returns the hash that identifies the page and its contents.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Returns whether it answers `request` and contains the entry at `place`.
    pub(super) fn has(&self, request: &ListMetadata, place: Place) -> bool {
        let offsets = self.start..self.start + self.entries.len();
        self.request == *request && self.version == place.version && offsets.contains(&place.offset)
    }

    /// Drops the entries before `start`, and the last ones until the listing holds at most
    /// `max` bytes. Returns how many bytes it holds, or `None` if no entry is left.
    pub(super) fn shrink(&mut self, start: usize, max: usize) -> Option<usize> {
        self.entries.drain(..start - self.start);
        self.start = start;
        let mut bytes = size_of::<Self>() + self.request.size() + self.next_page_token.capacity();
        let mut fitting = 0;
        for entry in &self.entries {
            if bytes + size(entry) > max {
                break;
            }
            bytes += size(entry);
            fitting += 1;
        }
        self.entries.truncate(fitting);
        self.entries.shrink_to_fit();
        (fitting > 0).then_some(bytes)
    }
}

/// Returns how many of `entries` make the next page: at least one if there are any.
fn page_length(entries: &[InstanceMetadata], page_size: i32) -> usize {
    let most = match usize::try_from(page_size) {
        Ok(size) if size > 0 => size,
        _ => usize::MAX,
    };
    let mut bytes = 0;
    let fitting = entries.iter().take(most).take_while(|entry| {
        bytes += size(entry);
        bytes <= MAX_PAGE
    });
    fitting.count().max(1).min(entries.len())
}

/// Returns how many bytes of memory an entry holds. Its encoded size is not larger: tags,
/// lengths and a time take less than the struct itself.
fn size(entry: &InstanceMetadata) -> usize {
    entry.key.capacity()
        + entry.value.capacity()
        + entry.content_type.capacity()
        + entry.fingerprint.capacity()
        + entry.attached_by.capacity()
        + size_of::<InstanceMetadata>()
}

/// Splits a token without its mark into the place and the repository's token.
fn read_token(token: &str) -> Option<(Place, &str)> {
    let (version, token) = token.split_once('-')?;
    let (offset, token) = token.split_once('-')?;
    let place = Place {
        version: u64::from_str_radix(version, 16).ok()?,
        offset: usize::from_str_radix(offset, 16).ok()?,
    };
    Some((place, token))
}

fn bad_token() -> Status {
    Status::new(
        Code::INVALID_ARGUMENT,
        "bad 'page_token': not one that the host has made",
    )
}

fn changed(listing: &Listing) -> Status {
    let package = quote_bytes(listing.request.package.as_bytes());
    let text = format!("the metadata of {package} has changed while it was being listed");
    Status::new(Code::ABORTED, text)
}

#[cfg(test)]
mod tests;
