use admission_proto::InstanceMetadata;

use super::*;

const MIB: usize = 1 << 20;

struct Fixture {
    pager: Pager,
    kept: KeptListings,
}

impl Fixture {
    fn new() -> Self {
        Self {
            pager: Pager::new(7),
            kept: KeptListings::new(),
        }
    }

    /// Opens the page of a package with entries that hold so many MiB each.
    fn open(&self, package: &str, entries: &[usize]) -> Listing {
        let entries = entries.iter().map(|&size| {
            let mut entry = InstanceMetadata::default();
            // Only the capacity counts: untouched memory costs nothing.
            entry.value = Vec::with_capacity(size * MIB);
            entry
        });
        let page = MetadataPage::new(entries.collect(), "");
        self.pager.open(request(package), page).expect("a page")
    }

    /// Answers the first page of a package and keeps the rest; returns the next call.
    fn begin(&mut self, package: &str, entries: &[usize], check: CheckId) -> Call {
        let listing = self.open(package, entries);
        let (page, seen) = self.pager.page(&listing, None).expect("a page");
        self.kept.keep(listing, seen, Some(check));
        self.next(&page, check).expect("a page follows")
    }

    fn next(&self, page: &MetadataPage, check: CheckId) -> Option<Call> {
        let mut request = request("");
        request.page_token.clone_from(&page.next_page_token);
        let place = self.pager.locate(&mut request).expect("a token");
        place.map(|place| Call { place, check })
    }

    fn page(&mut self, package: &str, call: &Call) -> Option<MetadataPage> {
        let request = request(package);
        self.kept
            .page(&self.pager, &request, call.place, Some(call.check))
    }

    fn holds_nothing(&self) -> bool {
        assert_eq!(self.kept.listings.is_empty(), self.kept.bytes == 0);
        assert_eq!(self.kept.listings.len(), self.kept.by_check.len());
        self.kept.listings.is_empty()
    }
}

/// A call for the entries from a place on.
#[derive(Clone, Copy)]
struct Call {
    place: Place,
    check: CheckId,
}

/// Asks for one entry at a time.
fn request(package: &str) -> ListMetadata {
    ListMetadata {
        package: package.into(),
        page_size: 1,
        ..ListMetadata::default()
    }
}

fn check(number: u8) -> CheckId {
    let id = format!(
        "AAAAAAAAAA{}AAAAAAAAAAAAAAAAAAAAA",
        char::from(b'A' + number)
    );
    CheckId::from_wire(&id).expect("32 characters of base64")
}

#[test]
fn a_kept_listing_is_returned_page_by_page() {
    let mut fixture = Fixture::new();
    let mut call = fixture.begin("a", &[1, 2, 3], check(1));
    for last in [false, true] {
        let page = fixture.page("a", &call).expect("kept");
        assert_eq!(page.metadata.len(), 1);
        assert_eq!(page.next_page_token.is_empty(), last);
        // A page can be asked for again.
        assert_eq!(fixture.page("a", &call), Some(page.clone()));
        if let Some(next) = fixture.next(&page, check(1)) {
            call = next;
        }
    }
}

#[test]
fn a_listing_of_one_service_does_not_answer_for_another() {
    let mut fixture = Fixture::new();
    let call = fixture.begin("a", &[1, 2], check(1));
    let mut elsewhere = request("a");
    elsewhere.service_url = "https://other.example.com".into();
    let kept = &mut fixture.kept;
    let page = kept.page(&fixture.pager, &elsewhere, call.place, None);
    assert_eq!(page, None);
    assert!(fixture.page("a", &call).is_some());
}

#[test]
fn a_listing_without_further_entries_is_not_kept() {
    let mut fixture = Fixture::new();
    let listing = fixture.open("a", &[1]);
    fixture.kept.keep(listing, 1, Some(check(1)));
    assert!(fixture.holds_nothing());
}

#[test]
fn the_least_recently_used_listing_is_dropped_for_a_new_one() {
    let mut fixture = Fixture::new();
    let a = fixture.begin("a", &[1, 14], check(1));
    let b = fixture.begin("b", &[1, 14], check(1));
    assert!(fixture.page("a", &a).is_some());
    let c = fixture.begin("c", &[1, 14], check(1));
    assert!(fixture.page("b", &b).is_none());
    assert!(fixture.page("a", &a).is_some());
    assert!(fixture.page("c", &c).is_some());
    assert!(fixture.kept.bytes <= MAX_KEPT);
    assert!(!fixture.holds_nothing());
}

#[test]
fn the_beginning_of_a_listing_that_is_too_large_is_kept() {
    let mut fixture = Fixture::new();
    let call = fixture.begin("a", &[1, 20, 20, 20], check(1));
    assert!(fixture.kept.bytes <= MAX_KEPT);
    let page = fixture.page("a", &call).expect("kept");
    let next = fixture.next(&page, check(1)).expect("there is more");
    assert!(fixture.page("a", &next).is_none());
    // An entry that is too large by itself is not kept.
    let mut fixture = Fixture::new();
    let listing = fixture.open("a", &[1, 33]);
    fixture.kept.keep(listing, 1, Some(check(1)));
    assert!(fixture.holds_nothing());
}

#[test]
fn a_listing_is_dropped_with_the_check_that_used_it_last() {
    let mut fixture = Fixture::new();
    let call = fixture.begin("a", &[1, 1], check(1));
    let other = Call {
        check: check(2),
        ..call
    };
    assert!(fixture.page("a", &other).is_some());
    fixture.kept.end(check(1));
    assert!(fixture.page("a", &other).is_some());
    fixture.kept.end(check(2));
    assert!(fixture.page("a", &other).is_none());
    assert!(fixture.holds_nothing());
}

#[test]
fn a_kept_listing_does_not_answer_another_page_size() {
    let mut fixture = Fixture::new();
    let call = fixture.begin("a", &[1, 1], check(1));
    let mut other = request("a");
    other.page_size = 2;
    let kept = &mut fixture.kept;
    let page = kept.page(&fixture.pager, &other, call.place, None);
    assert!(page.is_none());
}

#[test]
fn a_place_in_one_package_is_not_valid_in_another() {
    let mut fixture = Fixture::new();
    let call = fixture.begin("a", &[1, 1], check(1));
    fixture.begin("b", &[1, 1], check(1));
    assert!(fixture.page("b", &call).is_none());
    assert!(fixture.page("a", &call).is_some());
}

#[test]
fn a_fresh_answer_replaces_the_kept_listing() {
    let mut fixture = Fixture::new();
    fixture.begin("a", &[1, 10], check(1));
    let bytes = fixture.kept.bytes;
    fixture.begin("a", &[1, 10], check(2));
    assert_eq!(fixture.kept.bytes, bytes);
    let (_, kept) = fixture.kept.listings.peek_lru().expect("it is kept");
    assert_eq!(kept.check, Some(check(2)));
}
