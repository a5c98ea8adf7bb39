//! Calls for metadata as the SDK would not make them.

use std::process::ExitCode;

use admission_proto::wire::plugin::{Admission, ListMetadataResponse};
use futures_util::future::join_all;

use crate::wire::{Wire, listing};

/// Admissions that `in-turns` waits for.
const TOGETHER: usize = 4;

/// Calls that `eager` makes at once.
const CALLS: usize = 8;

/// Returns `None` if there is no such mode.
pub(super) fn run(argument: &str) -> Option<ExitCode> {
    match argument {
        "page-sizes" => page_sizes(),
        "in-turns" => in_turns(),
        "heir" => heir(),
        "eager" => eager(),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// Lists with the page size in the package's name and denies with the sizes of the pages.
fn page_sizes() {
    Wire::new().connect_and(|wire, admission| {
        let page_size = admission.package.split('/').nth(1).map(str::parse);
        let mut listing = Listing::new(admission, page_size.expect("a number").expect("a number"));
        let mut sizes = Vec::new();
        while !listing.done {
            let before = listing.keys.len();
            listing.next(wire);
            sizes.push((listing.keys.len() - before).to_string());
        }
        wire.deny(&listing.admission.admission_id, &sizes.join(" "));
    });
}

/// Lists the metadata of four packages, a page of each in turn.
fn in_turns() {
    let mut listings = Vec::new();
    Wire::new().connect_and(|wire, admission| {
        listings.push(Listing::new(admission, 0));
        if listings.len() < TOGETHER {
            return;
        }
        while listings.iter().any(|listing| !listing.done) {
            for listing in listings.iter_mut().filter(|listing| !listing.done) {
                listing.next(wire);
            }
        }
        for listing in listings.drain(..) {
            wire.deny(&listing.admission.admission_id, &listing.keys.join(" "));
        }
    });
}

/// Gets the first page for one admission and goes on for the next.
fn heir() {
    let mut heritage: Option<Listing> = None;
    Wire::new().connect_and(|wire, admission| {
        let mut listing = heritage
            .take()
            .unwrap_or_else(|| Listing::new(admission.clone(), 7));
        listing.next(wire);
        wire.deny(&admission.admission_id, &listing.keys.join(" "));
        heritage = Some(listing);
    });
}

/// Asks for the metadata of eight packages at once, and denies with the sizes of their
/// first pages.
fn eager() {
    Wire::new().connect_and(|wire, admission| {
        let calls = (0..CALLS).map(|number| {
            let mut request = listing(&admission);
            request.package = format!("packages/{number}");
            let request = wire.handshake.request(request);
            let mut host = wire.host.clone();
            async move { host.list_metadata(request).await }
        });
        let sizes = wire
            .block_on(join_all(calls))
            .into_iter()
            .map(|page| match page {
                Ok(page) => page.into_inner().metadata.len().to_string(),
                Err(status) => status.message().to_owned(),
            });
        let sizes: Vec<_> = sizes.collect();
        wire.deny(&admission.admission_id, &sizes.join(" "));
    });
}

/// What was listed so far.
struct Listing {
    admission: Admission,
    page_size: i32,
    page_token: String,
    keys: Vec<String>,
    done: bool,
}

impl Listing {
    fn new(admission: Admission, page_size: i32) -> Self {
        Self {
            admission,
            page_size,
            page_token: String::new(),
            keys: Vec::new(),
            done: false,
        }
    }

    /// Lists the next page. A status in its place ends the listing, as its last key.
    fn next(&mut self, wire: &mut Wire) {
        let mut request = listing(&self.admission);
        request.page_size = self.page_size;
        request.page_token = std::mem::take(&mut self.page_token);
        match wire.list_metadata(request) {
            Ok(page) => {
                self.page_token.clone_from(&page.next_page_token);
                self.keys.extend(keys(page));
            }
            Err(status) => self.keys.push(status.message().to_owned()),
        }
        self.done = self.page_token.is_empty();
    }
}

fn keys(page: ListMetadataResponse) -> Vec<String> {
    page.metadata.into_iter().map(|entry| entry.key).collect()
}
