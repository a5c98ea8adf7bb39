//! Pages that fit a frame and the page size, and the page tokens of the host.
//!
//! The service ignores the page size, returns all entries in one page and has no page tokens.
//! So the host cuts the repository's page. The tokens of the host contain all that is needed
//! to find a place in a new response of the repository, so a cached listing may be evicted.

use std::hash::{BuildHasher as _, RandomState};

use admission_proto::{Code, InstanceMetadata, Status, frame, quote_bytes};

use crate::repository::{ListMetadata, MetadataPage};

/// Most bytes of entries in one page, encoded. Leaves half a MiB of the frame for the rest,
/// which is mostly the token.
const MAX_PAGE: usize = frame::PLUGIN_LIMIT - (512 << 10);

/// Cuts pages, and makes and reads the page tokens of one plugin.
pub(super) struct Pager {
    /// The prefix of every token of the host. It is random, so no token of the repository has
    /// it.
    mark: String,
    /// Random keys, so that a plugin cannot construct equal versions.
    keys: RandomState,
}

/// A place in a page of the repository, decoded from a token of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Version of the page.
    pub(super) version: u64,
    /// How many entries of the page the plugin has got.
    offset: usize,
}

/// A page of the repository, or the cached part of one.
pub(super) struct Listing {
    /// The request for the page.
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

    /// Decodes the request's token, if it is a token of the host: returns the place, and puts
    /// the repository's token for the page of that place into the request.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for a malformed token of the host.
    pub(super) fn locate(&self, request: &mut ListMetadata) -> Result<Option<Place>, Status> {
        let Some(token) = request.page_token.strip_prefix(&self.mark) else {
            return Ok(None);
        };
        let Some((place, token)) = read_token(token) else {
            return Err(bad_token_status());
        };
        request.page_token = token.to_owned();
        Ok(Some(place))
    }

    /// Creates the listing of a page, the repository's response to `request`.
    ///
    /// # Errors
    ///
    /// INTERNAL if the token of the next page is the token of this page: the plugin would
    /// request it forever.
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

    /// Cuts the plugin's page at `place`, or the first one without a place. Returns it and the
    /// index of the next entry.
    ///
    /// # Errors
    ///
    /// ABORTED if the repository's page has changed since the plugin got the first part of it:
    /// entries could be skipped or repeated. INVALID_ARGUMENT for a place outside of the page.
    pub(super) fn page(
        &self,
        listing: &Listing,
        place: Option<Place>,
    ) -> Result<(MetadataPage, usize), Status> {
        let offset = match place {
            None => 0,
            Some(place) if place.version != listing.version => return Err(changed_status(listing)),
            Some(place) if place.offset >= listing.total => return Err(bad_token_status()),
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
            // The page size does not affect the entries of the page.
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

    /// Returns whether it is the response to `request` and contains the entry at `place`.
    pub(super) fn has(&self, request: &ListMetadata, place: Place) -> bool {
        let offsets = self.start..self.start + self.entries.len();
        self.request == *request && self.version == place.version && offsets.contains(&place.offset)
    }

    /// Drops the entries before `start`, and then the last entries until the listing takes at
    /// most `max` bytes. Returns its size in bytes, or `None` if no entry is left.
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

/// Returns how many of `entries` fit in the next page: at least one if there are any.
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

/// Returns how many bytes of memory an entry takes. Its encoded size is not larger: tags,
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

fn bad_token_status() -> Status {
    Status::new(
        Code::INVALID_ARGUMENT,
        "bad 'page_token': not a token of this host",
    )
}

fn changed_status(listing: &Listing) -> Status {
    let package = quote_bytes(listing.request.package.as_bytes());
    let text = format!("the metadata of {package} has changed while it was being listed");
    Status::new(Code::ABORTED, text)
}

#[cfg(test)]
mod tests;
