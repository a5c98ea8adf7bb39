use admission_proto::wire::stdio::{HostFrame, ListMetadataReply, host_frame, list_metadata_reply};
use admission_proto::wire::{Message as _, plugin};
use proptest::prelude::*;

use super::*;
use std::time::{Duration, SystemTime};

fn pager() -> Pager {
    Pager::new(7)
}

fn request(page_size: i32, page_token: &str) -> ListMetadata {
    ListMetadata {
        package: "a/b".into(),
        page_size,
        page_token: page_token.into(),
        ..ListMetadata::default()
    }
}

/// Returns entries with values of these sizes.
fn entries(sizes: &[usize]) -> Vec<InstanceMetadata> {
    let entry = |(n, &size): (usize, &usize)| {
        let mut entry = InstanceMetadata::default();
        entry.key = format!("k{n:02}");
        entry.value = vec![0; size];
        entry.content_type = "text/plain".into();
        entry.fingerprint = "f".repeat(32);
        entry.attached_by = "user:a@example.com".into();
        entry.attached_ts = Some(SystemTime::UNIX_EPOCH + Duration::new(1 << 40, 999_999_999));
        entry
    };
    sizes.iter().enumerate().map(entry).collect()
}

fn open(pager: &Pager, page_size: i32, sizes: &[usize]) -> Listing {
    let page = MetadataPage::new(entries(sizes), "upstream-2");
    pager
        .open(request(page_size, "upstream-1"), page)
        .expect("a page")
}

/// Reads a token as the plugin sends it back.
fn locate(pager: &Pager, token: &str) -> (Option<Place>, String) {
    let mut request = request(0, token);
    let place = pager.locate(&mut request).expect("a token");
    (place, request.page_token)
}

/// Goes through the pages of `listing` until its own token is followed by another's.
fn pages(pager: &Pager, listing: &Listing) -> Vec<MetadataPage> {
    let mut pages = Vec::new();
    let mut place = None;
    loop {
        let (page, _) = pager.page(listing, place).expect("a page");
        let (next, token) = locate(pager, &page.next_page_token);
        pages.push(page);
        if next.is_none() {
            assert_eq!(token, "upstream-2");
            return pages;
        }
        assert_eq!(token, "upstream-1");
        place = next;
    }
}

fn lengths(pages: &[MetadataPage]) -> Vec<usize> {
    pages.iter().map(|page| page.metadata.len()).collect()
}

fn frame_length(page: MetadataPage) -> usize {
    let response = plugin::ListMetadataResponse {
        metadata: page.metadata.into_iter().map(Into::into).collect(),
        next_page_token: page.next_page_token,
    };
    let reply = ListMetadataReply {
        call_id: u64::MAX,
        result: Some(list_metadata_reply::Result::Page(response)),
    };
    let frame = HostFrame {
        frame: Some(host_frame::Frame::ListMetadataReply(reply)),
    };
    frame.encoded_len()
}

#[test]
fn a_listing_that_fits_stays_one_page() {
    let pager = pager();
    for sizes in [&[][..], &[0], &[512 << 10; 6]] {
        let pages = pages(&pager, &open(&pager, 0, sizes));
        assert_eq!(lengths(&pages), [sizes.len()]);
    }
}

#[test]
fn a_page_is_cut_by_size() {
    let pager = pager();
    let pages = pages(&pager, &open(&pager, 100, &[512 << 10; 32]));
    assert_eq!(lengths(&pages), [6, 6, 6, 6, 6, 2]);
}

#[test]
fn a_page_has_no_more_entries_than_the_plugin_wants() {
    let pager = pager();
    for (page_size, wanted) in [
        (7, &[7, 7, 1][..]),
        (15, &[15]),
        (i32::MAX, &[15]),
        (0, &[15]),
        (-1, &[15]),
    ] {
        let pages = pages(&pager, &open(&pager, page_size, &[1; 15]));
        assert_eq!(lengths(&pages), wanted, "page size {page_size}");
    }
}

#[test]
fn an_entry_that_exceeds_a_frame_is_a_page_of_its_own() {
    let pager = pager();
    let pages = pages(&pager, &open(&pager, 0, &[1, frame::PLUGIN_LIMIT, 1]));
    assert_eq!(lengths(&pages), [1, 1, 1]);
}

#[test]
fn a_place_is_found_again_in_a_fresh_answer() {
    let pager = pager();
    let (first, seen) = pager
        .page(&open(&pager, 7, &[1; 15]), None)
        .expect("a page");
    let (place, _) = locate(&pager, &first.next_page_token);
    let (second, _) = pager
        .page(&open(&pager, 7, &[1; 15]), place)
        .expect("a page");
    assert_eq!(seen, 7);
    assert_eq!(second.metadata[0].key, "k07");
    // Another page size is no other page.
    let (rest, _) = pager
        .page(&open(&pager, 0, &[1; 15]), place)
        .expect("a page");
    assert_eq!(rest.metadata.len(), 8);
}

#[test]
fn a_place_in_a_changed_page_is_an_error() {
    let pager = pager();
    let (first, _) = pager
        .page(&open(&pager, 7, &[1; 15]), None)
        .expect("a page");
    let (place, _) = locate(&pager, &first.next_page_token);
    for changed in [&[1; 14][..], &[1; 16], &[0; 15], &[]] {
        let error = pager
            .page(&open(&pager, 7, changed), place)
            .expect_err("it has changed");
        assert_eq!(error.code, Code::ABORTED);
        assert_eq!(
            error.message,
            r#"the metadata of "a/b" has changed while it was being listed"#
        );
    }
}

#[test]
fn a_token_that_the_repository_repeats_is_an_error() {
    let page = MetadataPage::new(entries(&[1]), "again");
    let Err(error) = pager().open(request(0, "again"), page.clone()) else {
        panic!("the token was repeated");
    };
    assert_eq!(error.code, Code::INTERNAL);
    assert_eq!(
        error.message,
        r#"the repository repeats the page token "again""#
    );
    assert!(pager().open(request(0, "before"), page).is_ok());
    assert!(
        pager()
            .open(request(0, ""), MetadataPage::default())
            .is_ok()
    );
}

#[test]
fn foreign_tokens_are_not_changed() {
    let (ours, other) = (pager(), Pager::new(8));
    let (page, _) = other
        .page(&open(&other, 7, &[1; 15]), None)
        .expect("a page");
    for token in ["", "x", "host-", &page.next_page_token] {
        assert_eq!(locate(&ours, token), (None, token.to_owned()));
    }
}

#[test]
fn a_malformed_token_of_the_host_is_refused() {
    let pager = pager();
    for rest in ["", "1", "1-2", "x-2-t", "1-x-t", "-1-2-t"] {
        let mut request = request(0, &format!("{}{rest}", pager.mark));
        let error = pager.locate(&mut request).expect_err("no token");
        assert_eq!(error.code, Code::INVALID_ARGUMENT, "{rest}");
    }
    let listing = open(&pager, 7, &[1; 15]);
    for offset in [15, usize::MAX] {
        let place = Place {
            version: listing.version,
            offset,
        };
        let error = pager
            .page(&listing, Some(place))
            .expect_err("a forged place");
        assert_eq!(error.code, Code::INVALID_ARGUMENT);
    }
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![
        4 => 0..100_usize,
        1 => 0..=admission_proto::MAX_METADATA_VALUE,
        1 => Just(admission_proto::MAX_METADATA_VALUE),
    ];
    prop::collection::vec(size, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_pages_of_a_listing_are_complete_and_each_fits(
        sizes in sizes(),
        page_size in prop_oneof![Just(0), 1..50],
    ) {
        let pager = pager();
        let listing = open(&pager, page_size, &sizes);
        let pages = pages(&pager, &listing);
        let all = pages.iter().flat_map(|page| &page.metadata);
        prop_assert!(all.eq(&listing.entries));
        for page in pages {
            prop_assert!(page_size == 0 || page.metadata.len() <= page_size.unsigned_abs() as usize);
            prop_assert!(frame_length(page) <= frame::PLUGIN_LIMIT - (500 << 10));
        }
    }

    #[test]
    fn a_kept_listing_is_bounded_and_returns_the_same_pages(
        sizes in sizes(),
        seen in 0..40_usize,
        max in 0..(8_usize << 20),
    ) {
        let pager = pager();
        let (whole, mut kept) = (open(&pager, 7, &sizes), open(&pager, 7, &sizes));
        let seen = seen.min(sizes.len());
        let size = kept.shrink(seen, max);
        prop_assert!(size.is_none_or(|size| size <= max));
        prop_assert_eq!(size.is_none(), kept.entries.is_empty());
        for offset in 0..sizes.len() {
            let place = Place { version: whole.version, offset };
            if kept.has(&request(7, "upstream-1"), place) {
                let (page, end) = pager.page(&kept, Some(place)).expect("a page");
                let (wanted, _) = pager.page(&whole, Some(place)).expect("a page");
                prop_assert_eq!(&page.metadata[..], &wanted.metadata[..page.metadata.len()]);
                prop_assert_eq!(end, offset + page.metadata.len());
                prop_assert!(offset >= seen && !page.metadata.is_empty());
            }
        }
    }
}
