//! What the test programs of the workspace list themselves.
#![expect(
    clippy::disallowed_methods,
    reason = "cargo talks to tests by the environment"
)]

use std::collections::BTreeSet;
use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use conformance::Mode;
use serde_json::Value;

/// The tests of the workspace that run unless they are asked not to.
pub(crate) struct Listing(BTreeSet<String>);

impl Listing {
    /// Asks cargo for the test programs and these for their tests.
    ///
    /// # Panics
    ///
    /// If the workspace does not compile.
    pub(crate) fn of_the_workspace() -> Self {
        let mut tests = BTreeSet::new();
        for (prefix, program) in programs() {
            let ignored = list(&program, &["--ignored"]);
            let all = list(&program, &[]);
            tests.extend(
                all.difference(&ignored)
                    .map(|test| format!("{prefix}::{test}")),
            );
        }
        Self(tests)
    }

    /// Tells whether there is a test of exactly this name.
    pub(crate) fn has(&self, test: &str) -> bool {
        self.0.contains(test)
    }

    /// Returns the modes in which a shared test runs; none if it is not shared.
    pub(crate) fn modes_of(&self, test: &str) -> Vec<&'static str> {
        let runs_in = |mode: &&str| self.has(&format!("{test}::{mode}"));
        Mode::ALL
            .map(Mode::test_name)
            .into_iter()
            .filter(runs_in)
            .collect()
    }

    /// Returns the names of the tests of this package that run in any mode. Other packages
    /// have ways of their own to run one body several times.
    pub(crate) fn shared(&self) -> BTreeSet<String> {
        let shared = self.0.iter().filter_map(|test| {
            let (test, mode) = test.rsplit_once("::")?;
            if !test.starts_with("conformance/") {
                return None;
            }
            Mode::ALL
                .iter()
                .any(|known| known.test_name() == mode)
                .then(|| test.to_owned())
        });
        shared.collect()
    }
}

/// Returns every test program with what precedes the names of its tests: the package,
/// and the file unless it is the package itself.
///
/// Cargo has built them all when this runs among them, and holds no lock any more.
fn programs() -> Vec<(String, String)> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo says of this program would pass for a change of the environment, for which
    // build scripts that look at it would build anew.
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"CARGO_PKG_") {
            cargo.env_remove(name);
        }
    }
    cargo
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("OUT_DIR")
        .args(["test", "--workspace", "--no-run", "--locked", "--quiet"])
        .args(["--message-format", "json", "--profile", &profile()])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit());
    let output = cargo.output().expect("cargo runs, or this would not");
    assert!(output.status.success(), "the workspace does not compile");
    let messages = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let programs: Vec<_> = messages.lines().filter_map(program).collect();
    assert!(
        !programs.is_empty(),
        "cargo names the programs it has built"
    );
    programs
}

/// Returns the profile of this very program, so that nothing is built a second time.
fn profile() -> String {
    let program = env::current_exe().expect("this program has a path");
    // target/PROFILE/deps/PROGRAM
    let folder = program.ancestors().nth(2).and_then(Path::file_name);
    match folder.and_then(|name| name.to_str()) {
        None | Some("debug") => "test".to_owned(),
        Some(name) => name.to_owned(),
    }
}

fn program(message: &str) -> Option<(String, String)> {
    let message: Value = serde_json::from_str(message).expect("cargo prints JSON");
    let program = message["executable"].as_str()?;
    if message["profile"]["test"] != true {
        return None;
    }
    let package = package(message["package_id"].as_str()?);
    let target = &message["target"];
    let prefix = match target["kind"][0].as_str()? {
        "test" => format!("{package}/{}", target["name"].as_str()?),
        _ => package.to_owned(),
    };
    Some((prefix, program.to_owned()))
}

/// Returns the name in `path+file:///folder#name@version`, from which cargo leaves the
/// name out if it is the folder's.
fn package(id: &str) -> &str {
    let (folder, name) = id.rsplit_once('#').expect("a package has a version");
    match name.split_once('@') {
        Some((name, _version)) => name,
        None => folder.rsplit('/').next().unwrap_or(folder),
    }
}

/// Returns the names that a test program lists.
fn list(program: &str, options: &[&str]) -> BTreeSet<String> {
    let output = Command::new(program)
        .args(["--list", "--format", "terse"])
        .args(options)
        .output()
        .expect("cargo has built it");
    assert!(output.status.success(), "{program} does not list its tests");
    let lines = String::from_utf8(output.stdout).expect("names are UTF-8");
    let tests = lines.lines().filter_map(|line| line.strip_suffix(": test"));
    tests.map(str::to_owned).collect()
}
