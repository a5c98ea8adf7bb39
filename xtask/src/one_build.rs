//! Lints and documentation from the build of the tests.
//!
//! `cargo clippy` and `cargo doc` check every dependency before they start, which takes half as
//! long as building them. `ci` applies both tools to what it builds for the tests in any case.
//! `nightly` runs the two commands themselves.

use std::env;
use std::ffi::OsString;
use std::process::Command;

use anyhow::Context as _;

use crate::cargo::{self, Cargo};

/// The variable that makes this program a stand-in for rustdoc. Its value is the folder of the
/// documentation.
pub(crate) const DOCS: &str = "XTASK_DOCS";

/// Returns a cargo that compiles the workspace with clippy, and builds documentation with the doc
/// tests. A warning of either is an error. It builds once, so nothing is kept for a next build.
///
/// # Errors
///
/// If the path of this program is unknown.
pub(crate) fn configure(cargo: &Cargo) -> anyhow::Result<Cargo> {
    let this_program = env::current_exe().context("cannot find this program")?;
    Ok(cargo.with_environment(&[
        ("RUSTC_WORKSPACE_WRAPPER", "clippy-driver".into()),
        ("CLIPPY_ARGS", "-Dwarnings".into()),
        ("CARGO_INCREMENTAL", "0".into()),
        ("RUSTDOC", this_program.into()),
        (DOCS, cargo.target_folder().join("doc").into()),
    ]))
}

/// Runs rustdoc with the arguments of this program. If they are those of doc tests, builds the
/// documentation first.
///
/// # Errors
///
/// If rustdoc fails.
pub(crate) fn run_rustdoc(docs: OsString) -> anyhow::Result<()> {
    let args: Vec<_> = env::args_os().skip(1).collect();
    if let Some(args) = without_tests(&args) {
        let mut rustdoc = Command::new("rustdoc");
        rustdoc.args(args).arg("-Dwarnings");
        cargo::run(rustdoc.arg("--out-dir").arg(docs))?;
    }
    cargo::run(Command::new("rustdoc").args(args))
}

/// Returns the arguments for the documentation of a crate from those for its doc tests, or
/// `None` if they are others.
fn without_tests(args: &[OsString]) -> Option<Vec<&OsString>> {
    let mut is_test = false;
    let mut rest = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--test") => is_test = true,
            Some("--test-run-directory" | "--test-args") => {
                args.next();
            }
            _ => rest.push(arg),
        }
    }
    is_test.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_is_built_with_the_arguments_of_doc_tests() {
        let args = |words: &str| -> Vec<OsString> { words.split(' ').map(Into::into).collect() };
        let test = args("--crate-name a --test a.rs --test-run-directory . --test-args b --cfg c");
        let expected = args("--crate-name a a.rs --cfg c");
        assert_eq!(without_tests(&test), Some(expected.iter().collect()));
        assert_eq!(without_tests(&args("-vV")), None);
    }
}
