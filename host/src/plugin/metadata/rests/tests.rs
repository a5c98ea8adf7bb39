use admission_proto::InstanceMetadata;

use super::*;

const MIB: usize = 1 << 20;

struct Fixture {
    pager: Pager,
    rests: Rests,
}

impl Fixture {
    fn new() -> Self {
        Self {
            pager: Pager::new(7),
            rests: Rests::default(),
        }
    }

    /// Opens the page of a package with entries that hold so many MiB each.
    fn open(&self, package: &str, entries: &[usize]) -> Listing {
        let entries = entries.iter().map(|&size| {
            let mut entry = InstanceMetadata::default();
            // What it holds, not what it says: room that is never touched costs nothing.
            entry.value = Vec::with_capacity(size * MIB);
            entry
        });
        let page = MetadataPage::new(entries.collect(), "");
        self.pager.open(request(package), page).expect("a page")
    }

    /// Answers the first page of a package and keeps the rest; returns the next call.
    fn begin(&mut self, package: &str, entries: &[usize], check: CheckId) -> Waiting {
        let listing = self.open(package, entries);
        let (page, seen) = self.pager.page(&listing, None).expect("a page");
        self.rests.keep(listing, seen, Some(check));
        self.next(&page, check).expect("a page follows")
    }

    fn next(&self, page: &MetadataPage, check: CheckId) -> Option<Waiting> {
        let mut request = request("");
        request.page_token.clone_from(&page.next_page_token);
        let place = self.pager.locate(&mut request).expect("a token");
        place.map(|place| Waiting {
            call_id: 1,
            check: Some(check),
            place: Some(place),
        })
    }

    fn page(&mut self, package: &str, call: &Waiting) -> Option<MetadataPage> {
        self.rests.page(&self.pager, &request(package), call)
    }

    fn holds_nothing(&self) -> bool {
        let Rests {
            by_version,
            by_use,
            by_check,
            bytes,
            ..
        } = &self.rests;
        assert_eq!(by_version.len(), by_use.len());
        assert_eq!(by_version.len(), by_check.len());
        assert_eq!(by_version.is_empty(), *bytes == 0);
        by_version.is_empty()
    }
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
fn what_is_left_of_a_page_is_handed_out_piece_by_piece() {
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
fn what_is_left_of_one_services_page_is_not_handed_out_for_anothers() {
    let mut fixture = Fixture::new();
    let call = fixture.begin("a", &[1, 2], check(1));
    let mut elsewhere = request("a");
    elsewhere.service_url = "https://other.example.com".into();
    let page = fixture.rests.page(&fixture.pager, &elsewhere, &call);
    assert_eq!(page, None);
    assert!(fixture.page("a", &call).is_some());
}

#[test]
fn a_page_that_is_done_leaves_nothing() {
    let mut fixture = Fixture::new();
    let listing = fixture.open("a", &[1]);
    fixture.rests.keep(listing, 1, Some(check(1)));
    assert!(fixture.holds_nothing());
}

#[test]
fn the_least_recently_used_rest_is_dropped_for_a_new_one() {
    let mut fixture = Fixture::new();
    let a = fixture.begin("a", &[1, 14], check(1));
    let b = fixture.begin("b", &[1, 14], check(1));
    assert!(fixture.page("a", &a).is_some());
    let c = fixture.begin("c", &[1, 14], check(1));
    assert!(fixture.page("b", &b).is_none());
    assert!(fixture.page("a", &a).is_some());
    assert!(fixture.page("c", &c).is_some());
    assert!(fixture.rests.bytes <= MAX_KEPT);
}

#[test]
fn of_a_rest_that_is_too_large_the_beginning_is_kept() {
    let mut fixture = Fixture::new();
    let call = fixture.begin("a", &[1, 20, 20, 20], check(1));
    assert!(fixture.rests.bytes <= MAX_KEPT);
    let page = fixture.page("a", &call).expect("kept");
    let next = fixture.next(&page, check(1)).expect("there is more");
    assert!(fixture.page("a", &next).is_none());
    // Nothing at all of an entry that is too large alone.
    let mut fixture = Fixture::new();
    let listing = fixture.open("a", &[1, 33]);
    fixture.rests.keep(listing, 1, Some(check(1)));
    assert!(fixture.holds_nothing());
}

#[test]
fn a_rest_ends_with_the_check_that_has_used_it_last() {
    let mut fixture = Fixture::new();
    let call = fixture.begin("a", &[1, 1], check(1));
    let other = Waiting {
        check: Some(check(2)),
        ..call
    };
    assert!(fixture.page("a", &other).is_some());
    fixture.rests.end(check(1));
    assert!(fixture.page("a", &other).is_some());
    assert!(fixture.rests.checks().eq([check(2)]));
    fixture.rests.end(check(2));
    assert!(fixture.page("a", &other).is_none());
    assert!(fixture.holds_nothing());
}

#[test]
fn a_rest_is_no_answer_to_another_page_size() {
    let mut fixture = Fixture::new();
    let call = fixture.begin("a", &[1, 1], check(1));
    let mut other = request("a");
    other.page_size = 2;
    assert!(fixture.rests.page(&fixture.pager, &other, &call).is_none());
}

#[test]
fn a_place_in_one_package_is_none_in_another() {
    let mut fixture = Fixture::new();
    let call = fixture.begin("a", &[1, 1], check(1));
    fixture.begin("b", &[1, 1], check(1));
    assert!(fixture.page("b", &call).is_none());
    assert!(fixture.page("a", &call).is_some());
}

#[test]
fn a_fresh_answer_takes_the_place_of_what_is_left_of_it() {
    let mut fixture = Fixture::new();
    fixture.begin("a", &[1, 10], check(1));
    let bytes = fixture.rests.bytes;
    fixture.begin("a", &[1, 10], check(2));
    assert_eq!(fixture.rests.bytes, bytes);
    fixture.rests.end(check(2));
    assert!(fixture.holds_nothing());
}
