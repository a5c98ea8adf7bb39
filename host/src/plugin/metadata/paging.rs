//! Pages cut to what a frame takes and the plugin wants, and the tokens between them.
//!
//! The real service ignores the page size, answers everything at once and knows no
//! page tokens. So a page of the repository is cut here, and where the plugin goes on
//! is told by a token of the host. Such a token holds all that is needed to find the
//! place again in a fresh answer of the repository: what is kept of an answer is a
//! cache, and can be dropped at any time.

use std::hash::{BuildHasher as _, RandomState};

use admission_proto::{Code, InstanceMetadata, Status, frame, quote_bytes};

use crate::repository::{ListMetadata, MetadataPage};

/// Most bytes of entries in one page, as they stand in its frame. Leaves half a MiB of
/// the frame to what stands around them, which is mostly the token.
const MAX_PAGE: usize = frame::PLUGIN_LIMIT - (512 << 10);

/// Most bytes that an entry takes in a frame beside its texts and its value: tags,
/// lengths and a time.
const AROUND_ENTRY: usize = 64;

/// Makes and reads the tokens of one plugin.
pub(super) struct Pager {
    /// Begins each token. Nobody else can know it, so none of the repository's begins
    /// with it.
    mark: String,
    /// Makes versions, which nobody can aim at.
    keys: RandomState,
}

/// Where the plugin wants to go on in a page of the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The page that it has seen the beginning of.
    pub(super) version: u64,
    /// How many entries it has seen.
    offset: usize,
}

/// A page of the repository, or the part of it that is kept.
pub(super) struct Listing {
    /// What the repository was asked.
    request: ListMetadata,
    /// Hash of the question and of all entries of the page.
    version: u64,
    /// Which entry of the page is the first of `entries`.
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

    /// Reads the token of a request. If it is the host's, what is left in the request
    /// is the repository's token for the page in which the place is.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for what begins like a token of the host and is none.
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

    /// Takes the repository's answer to `request`.
    ///
    /// # Errors
    ///
    /// INTERNAL if the next page is to be asked for with the token that this one was
    /// asked for with: there would be no end.
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

    /// Returns what the plugin gets at `place`, or from the beginning, and which entry
    /// comes after that.
    ///
    /// # Errors
    ///
    /// ABORTED if the plugin has seen the beginning of another page than this:
    /// going on could skip entries or repeat them. INVALID_ARGUMENT for a place that
    /// no token of the host names.
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
            // It cuts the entries and does not choose them.
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
    /// Returns what tells the page from others and from what it was before.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Tells whether it answers `request`, and has the entry at `place`.
    pub(super) fn has(&self, request: &ListMetadata, place: Place) -> bool {
        let offsets = self.start..self.start + self.entries.len();
        self.request == *request && self.version == place.version && offsets.contains(&place.offset)
    }

    /// Drops the entries before `start`, and at the end as many as it takes to hold no
    /// more than `max` bytes. Returns how many bytes it holds, or `None` if no entry
    /// is left.
    pub(super) fn shrink(&mut self, start: usize, max: usize) -> Option<usize> {
        self.entries.drain(..start - self.start);
        self.start = start;
        let mut size = self.size_around();
        let fitting = self.entries.iter().take_while(|entry| {
            size += size_in_memory(entry);
            size <= max
        });
        let fitting = fitting.count();
        self.entries.truncate(fitting);
        self.entries.shrink_to_fit();
        let entries: usize = self.entries.iter().map(size_in_memory).sum();
        (fitting > 0).then_some(self.size_around() + entries)
    }

    fn size_around(&self) -> usize {
        size_of::<Self>() + self.request.size() + self.next_page_token.capacity()
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
        bytes += size_in_frame(entry);
        bytes <= MAX_PAGE
    });
    fitting.count().max(1).min(entries.len())
}

/// Returns the most bytes that an entry takes in a frame.
fn size_in_frame(entry: &InstanceMetadata) -> usize {
    entry.key.len()
        + entry.value.len()
        + entry.content_type.len()
        + entry.fingerprint.len()
        + entry.attached_by.len()
        + AROUND_ENTRY
}

/// Returns how many bytes an entry holds.
fn size_in_memory(entry: &InstanceMetadata) -> usize {
    entry.key.capacity()
        + entry.value.capacity()
        + entry.content_type.capacity()
        + entry.fingerprint.capacity()
        + entry.attached_by.capacity()
        + size_of::<InstanceMetadata>()
}

/// Reads what follows the mark: the place, and the repository's token.
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
