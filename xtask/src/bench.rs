//! Compares the speed of this tree with that of an older commit.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::cargo::{self, Cargo};

/// Factor by which a median may be worse than the old one.
const TOLERANCE: f64 = 1.05;

/// Builds the bench of this tree and that of `commit`. Runs them in turns, each `runs` times, and
/// prints both distributions of every figure.
///
/// # Errors
///
/// If a bench cannot be built or run, or if a figure is worse than before.
pub(crate) fn compare(
    cargo: &Cargo,
    commit: &str,
    runs: u32,
    args: &[OsString],
) -> anyhow::Result<()> {
    let old = check_out(cargo, commit)?;
    let benches = [old.build_bench()?, cargo.build_bench()?];
    let mut tables = [Vec::new(), Vec::new()];
    for run in 0..runs {
        // The benches take turns to run first, so that a slow drift of the machine affects both.
        let order = if run % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            eprintln!("run {} of {runs}: {}", run + 1, ["old", "new"][side]);
            let printed = cargo::output(
                Command::new(&benches[side])
                    .args(["--runs", "1"])
                    .args(args),
            )?;
            let printed =
                String::from_utf8(printed).context("the output of the bench is not UTF-8")?;
            let table = parse(&printed);
            if table.is_empty() {
                bail!("cannot find the table in the output of the bench:\n{printed}");
            }
            tables[side].push(table);
        }
    }
    report(&tables)
}

/// Checks out `commit` in its own folder with its own target folder. In a shared target folder,
/// each build would replace the artifacts of the other.
fn check_out(cargo: &Cargo, commit: &str) -> anyhow::Result<Cargo> {
    let git = || {
        let mut git = Command::new("git");
        git.arg("-C").arg(cargo.root());
        git
    };
    let commit = format!("{commit}^{{commit}}");
    let id = cargo::output(git().args(["rev-parse", "--short=12", "--verify", &commit]))?;
    let id = String::from_utf8(id).context("the output of git is not UTF-8")?;
    let folder = cargo.target_folder().join("bench").join(id.trim());
    let tree = folder.join("tree");
    if !tree.exists() {
        // If the target folder was deleted, git still has a record of the worktree that was in
        // it. `--force` replaces that record.
        let mut add = git();
        add.args(["worktree", "add", "--force", "--detach"]);
        cargo::run(add.arg(&tree).arg(id.trim()))?;
    }
    Ok(cargo.in_workspace(tree, folder.join("target")))
}

/// One figure of one run.
#[derive(Debug, PartialEq)]
struct Figure {
    mode: String,
    column: &'static str,
    value: f64,
}

/// Columns of the table that the bench prints, without the first, which is the mode. Times are
/// converted to microseconds. The ratio between modes is not compared.
const COLUMNS: [&str; 6] = [
    "checks/s",
    "ratio",
    "CPU us/check",
    "first us",
    "p50 us",
    "p99 us",
];

/// Reads the table that the bench prints. Commits since 59ca32d print it in this form.
fn parse(printed: &str) -> Vec<Figure> {
    let mut figures = Vec::new();
    for line in printed.lines() {
        let mut words = line.split_whitespace();
        let mode = words.next().unwrap_or_default();
        let values: Option<Vec<_>> = words.map(number).collect();
        let Some(values) = values.filter(|values| values.len() == COLUMNS.len()) else {
            continue;
        };
        let columns = COLUMNS.into_iter().zip(values);
        figures.extend(
            columns
                .filter(|(column, _)| *column != "ratio")
                .map(|(column, value)| Figure {
                    mode: mode.to_owned(),
                    column,
                    value,
                }),
        );
    }
    figures
}

/// Parses a number, or a time in the `Debug` format of `Duration`, which is converted to
/// microseconds.
fn number(word: &str) -> Option<f64> {
    let units = [
        ("ns", 1e-3),
        ("µs", 1.0),
        ("ms", 1e3),
        ("s", 1e6),
        ("", 1.0),
    ];
    units.iter().find_map(|(unit, factor)| {
        let number: f64 = word.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    })
}

/// Quartiles of a figure: 25 %, 50 % and 75 %.
type Quartiles = [f64; 3];

fn quartiles(mut values: Vec<f64>) -> Quartiles {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| {
        let (place, rest) = (
            (values.len() - 1) * quarter / 4,
            (values.len() - 1) * quarter % 4,
        );
        let next = values[(place + 1).min(values.len() - 1)];
        #[expect(clippy::cast_precision_loss, reason = "it is less than 4")]
        let share = rest as f64 / 4.0;
        values[place] + (next - values[place]) * share
    })
}

fn report(tables: &[Vec<Vec<Figure>>; 2]) -> anyhow::Result<()> {
    println!(
        "{:<10} {:<13} {:>9} {:>21} {:>9} {:>21} {:>6}",
        "mode", "figure", "old", "quartiles", "new", "quartiles", "ratio"
    );
    let mut worse = Vec::new();
    for Figure { mode, column, .. } in &tables[1][0] {
        let of = |table: &[Vec<Figure>]| {
            let figures = table.iter().flatten();
            let same = figures.filter(|figure| figure.mode == *mode && figure.column == *column);
            same.map(|figure| figure.value).collect::<Vec<_>>()
        };
        let (old, new) = (of(&tables[0]), of(&tables[1]));
        if old.is_empty() {
            println!("{mode:<10} {column:<13} not measured by the old commit");
            continue;
        }
        let (old, new) = (quartiles(old), quartiles(new));
        let verdict = if is_worse(column, old, new) {
            worse.push(format!("{mode} {column}"));
            "worse"
        } else {
            "ok"
        };
        let range = |[low, _, high]: Quartiles| format!("[{low:.1} .. {high:.1}]");
        println!(
            "{mode:<10} {column:<13} {:>9.1} {:>21} {:>9.1} {:>21} {:>6.2} {verdict}",
            old[1],
            range(old),
            new[1],
            range(new),
            new[1] / old[1]
        );
    }
    if !worse.is_empty() {
        bail!("worse than before: {}", worse.join(", "));
    }
    Ok(())
}

/// Returns whether the new median is worse than the tolerance allows and outside of the old
/// quartiles. For checks per second, higher is better. All other figures are times.
fn is_worse(column: &str, old: Quartiles, new: Quartiles) -> bool {
    if column == "checks/s" {
        new[1] * TOLERANCE < old[1] && new[1] < old[0]
    } else {
        new[1] > old[1] * TOLERANCE && new[1] > old[2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_in_microseconds_and_without_the_ratio() {
        let printed = "\
10000 checks at once, launch and close included; 2000 one after the other; medians of 1 runs
mode         checks/s    ratio  CPU/check  first after        p50        p99
native         123456     1.00    900.0ns      12.5ms     35.2µs      1.0s
";
        let figures = parse(printed);
        let values: Vec<_> = figures
            .iter()
            .map(|figure| (figure.column, figure.value))
            .collect();
        let expected = [
            ("checks/s", 123_456.0),
            ("CPU us/check", 0.9),
            ("first us", 12_500.0),
            ("p50 us", 35.2),
            ("p99 us", 1_000_000.0),
        ];
        assert_eq!(values, expected);
        assert!(figures.iter().all(|figure| figure.mode == "native"));
    }

    #[test]
    fn quartiles_lie_between_values() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quartiles(values.to_vec()), [1.75, 2.5, 3.25]);
        assert_eq!(quartiles(vec![7.0]), [7.0; 3]);
    }

    #[test]
    fn a_median_may_be_5_percent_worse_or_within_the_old_quartiles() {
        let at = |median| [median - 1.0, median, median + 1.0];
        let old = [90.0, 100.0, 110.0];
        for (new, slower, lower) in [
            (94.0, false, false),
            (89.0, false, true),
            (106.0, false, false),
            (111.0, true, false),
        ] {
            assert_eq!(is_worse("p50 us", old, at(new)), slower, "{new}");
            assert_eq!(is_worse("checks/s", old, at(new)), lower, "{new}");
        }
        assert!(!is_worse("p50 us", [99.0, 100.0, 101.0], at(104.0)));
    }
}
