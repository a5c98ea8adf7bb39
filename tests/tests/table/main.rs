//! The conformance table says nothing that no test shows.
//!
//! `docs/conformance.md` has a row for each statement about the reference's behaviour.
//! Here its rows are held against that list, and the tests that they name against what
//! the test programs of the whole workspace list themselves.

mod listing;
mod page;

use std::fmt::Write as _;

use conformance::Mode;
use listing::Listing;
use page::{Fate, Row};

/// The last statement of each section; the first is always 1.
const SECTIONS: [(u32, u32); 8] = [
    (1, 25),
    (2, 14),
    (3, 16),
    (4, 11),
    (5, 15),
    (6, 9),
    (7, 8),
    (9, 16),
];

#[test]
fn every_statement_has_one_row_in_its_place() {
    let statements = SECTIONS
        .iter()
        .flat_map(|&(section, last)| (1..=last).map(move |n| format!("{section}.{n}")));
    let rows = page::rows().into_iter().map(|row| row.number);
    assert_eq!(rows.collect::<Vec<_>>(), statements.collect::<Vec<_>>());
}

#[test]
fn every_row_says_what_became_of_its_statement_and_how_that_is_shown() {
    let mut faults = Faults::default();
    for row in page::rows() {
        if row.claim.is_empty() {
            faults.add(&row, "claims nothing");
        }
        let tested = !row.tests.is_empty();
        match &row.fate {
            Some(Fate::Kept | Fate::Mended) if !tested => faults.add(&row, "has no test"),
            Some(Fate::NotApplicable) if tested => {
                faults.add(&row, "has tests for what is not there");
            }
            Some(_) => {}
            None => faults.add(&row, "is neither kept, mended nor not applicable"),
        }
        if tested == row.modes.is_none() {
            faults.add(&row, "has tests without modes, or modes without tests");
        }
    }
    faults.assert_none();
}

#[test]
fn every_test_of_a_row_exists_in_the_modes_that_the_row_claims() {
    let listing = Listing::of_the_workspace();
    let mut faults = Faults::default();
    for row in page::rows() {
        let Some(claimed) = &row.modes else { continue };
        let mut shared = false;
        for test in &row.tests {
            let modes = listing.modes_of(test);
            shared |= modes == *claimed;
            if modes.is_empty() && !listing.has(test) {
                faults.add(
                    &row,
                    &format!("names `{test}`, which does not exist or is ignored"),
                );
            } else if modes.iter().any(|mode| !claimed.contains(mode)) {
                faults.add(
                    &row,
                    &format!("names `{test}`, which runs in other modes: {modes:?}"),
                );
            }
        }
        if claimed.len() > 1 && !shared {
            faults.add(
                &row,
                "claims several modes and names no test that runs in them",
            );
        }
    }
    faults.assert_none();
}

#[test]
fn every_shared_test_runs_in_every_mode() {
    let listing = Listing::of_the_workspace();
    let shared = listing.shared();
    assert!(!shared.is_empty(), "the harness makes shared tests");
    let lacking: Vec<_> = shared
        .into_iter()
        .filter(|test| {
            let modes = listing.modes_of(test);
            modes != Mode::ALL.map(Mode::test_name) && modes != Mode::STDIO.map(Mode::test_name)
        })
        .collect();
    assert!(lacking.is_empty(), "they lack a mode: {lacking:#?}");
}

/// What is wrong with the page, all of it at once.
#[derive(Default)]
struct Faults(String);

impl Faults {
    fn add(&mut self, row: &Row, what: &str) {
        writeln!(self.0, "row {} {what}", row.number).expect("a string takes it");
    }

    fn assert_none(self) {
        assert!(self.0.is_empty(), "docs/conformance.md:\n{}", self.0);
    }
}
