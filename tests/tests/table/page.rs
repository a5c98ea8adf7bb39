//! The page with the table, read.

use conformance::Mode;

const PAGE: &str = include_str!("../../../docs/conformance.md");

/// One statement and what shows it.
pub(crate) struct Row {
    /// Section and number.
    pub(crate) number: String,
    /// The statement in one line.
    pub(crate) claim: String,
    /// `None` if the row does not say it as the page promises.
    pub(crate) fate: Option<Fate>,
    /// Names of tests.
    pub(crate) tests: Vec<String>,
    /// The modes in which they run; `None` if there are none, empty if no plugin is run.
    pub(crate) modes: Option<Vec<&'static str>>,
}

/// What became of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    Mended,
    NotApplicable,
}

/// Returns the rows of every table whose first column is the number of a statement.
///
/// # Panics
///
/// If such a row has not five columns, or names a mode that there is not.
pub(crate) fn rows() -> Vec<Row> {
    let rows: Vec<_> = PAGE.lines().filter_map(row).collect();
    assert!(!rows.is_empty(), "the page has a table");
    rows
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<_> = line
        .strip_prefix("| ")?
        .strip_suffix(" |")?
        .split(" | ")
        .collect();
    let number = cells[0].trim();
    let (section, statement) = number.split_once('.')?;
    let (_section, _statement): (u32, u32) = (section.parse().ok()?, statement.parse().ok()?);
    let &[_, claim, fate, tests, modes] = &cells[..] else {
        panic!("row {number} has {} columns", cells.len());
    };
    Some(Row {
        number: number.to_owned(),
        claim: claim.trim().to_owned(),
        fate: fate_of(fate.trim()),
        tests: quoted(tests),
        modes: modes_of(number, modes.trim()),
    })
}

/// Reads what became of a statement. What is not simply kept has a reason.
fn fate_of(cell: &str) -> Option<Fate> {
    let reasoned = |rest: &str| {
        rest.strip_prefix(": ")
            .is_some_and(|reason| !reason.is_empty())
    };
    if cell == "kept" {
        return Some(Fate::Kept);
    }
    for (word, fate) in [
        ("kept", Fate::Kept),
        ("mended", Fate::Mended),
        ("not applicable", Fate::NotApplicable),
    ] {
        if cell.strip_prefix(word).is_some_and(reasoned) {
            return Some(fate);
        }
    }
    None
}

/// Returns what stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn modes_of(number: &str, cell: &str) -> Option<Vec<&'static str>> {
    match cell {
        "" => None,
        "-" => Some(Vec::new()),
        _ => Some(
            cell.split(", ")
                .map(|name| {
                    let mode = Mode::ALL
                        .map(Mode::test_name)
                        .into_iter()
                        .find(|mode| *mode == name);
                    mode.unwrap_or_else(|| panic!("row {number}: there is no mode {name:?}"))
                })
                .collect(),
        ),
    }
}
