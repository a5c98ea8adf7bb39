//! Every test that `docs/conformance.md` names exists.

use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../docs/conformance.md");

/// Folder of each package.
const PACKAGES: [(&str, &str); 5] = [
    ("admission-host", "host"),
    ("admission-proto", "proto"),
    ("admission-sdk", "guest-sdk"),
    ("admit", "cli"),
    ("conformance", "tests"),
];

#[test]
fn every_test_that_the_page_names_exists() {
    let quoted = PAGE.split('`').skip(1).step_by(2);
    let tests: Vec<_> = quoted.filter(|quoted| quoted.contains("::")).collect();
    assert!(tests.len() > 200, "the page has its tables");
    let missing: Vec<_> = tests.into_iter().filter(|test| !exists(test)).collect();
    assert!(missing.is_empty(), "docs/conformance.md names {missing:#?}");
}

/// Returns whether the file that `test` names has a function of its name. The tests of a
/// module are in a file of their own or in the file of the module.
fn exists(test: &str) -> bool {
    let (path, name) = test.rsplit_once("::").expect("a path and a name");
    let package = PACKAGES.iter().find_map(|(package, folder)| {
        let rest = path.strip_prefix(package)?;
        Some((folder, rest)).filter(|_| rest.is_empty() || rest.starts_with(['/', ':']))
    });
    let (folder, rest) = package.unwrap_or_else(|| panic!("no package has {test}"));
    // `package/file::module` is an integration test, `package::module` a unit test.
    let kind = if rest.starts_with('/') {
        "tests"
    } else {
        "src"
    };
    let module = rest.replace("::", "/");
    let module = Path::new("..")
        .join(folder)
        .join(kind)
        .join(module.trim_start_matches('/'));
    let files = module.ancestors().flat_map(|module| {
        let file = module.with_extension("rs");
        [file, module.join("main.rs"), module.join("lib.rs")]
    });
    let file: Option<PathBuf> = files.into_iter().find(|file| file.exists());
    #[expect(clippy::disallowed_methods, reason = "the sources are what is tested")]
    let source = fs::read_to_string(file.expect("a package has sources")).expect("UTF-8");
    source.contains(&format!("fn {name}("))
}
