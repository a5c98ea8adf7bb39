//! Data flows one way: no module of the host, and no crate, knows what stands above it.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the host, from the bottom up. Those of one row do not know each other.
const MODULES: [&[&str]; 7] = [
    &["error_kind", "log", "repository"],
    &["transport"],
    &["error", "source"],
    &["session"],
    &["plugin"],
    &["host"],
    &["lib"],
];

/// Crates that each crate may depend on, beside foreign ones.
const CRATES: [(&str, &[&str]); 5] = [
    ("proto", &[]),
    ("proto/grpc", &["admission-proto"]),
    ("host", &["admission-grpc", "admission-proto"]),
    ("guest-sdk", &["admission-grpc", "admission-proto"]),
    (
        "cli",
        &["admission-host", "admission-proto", "admission-sdk"],
    ),
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[expect(clippy::disallowed_methods, reason = "the sources are what is tested")]
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns every Rust file below `folder`.
#[expect(clippy::disallowed_methods, reason = "the sources are what is tested")]
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

fn rank(module: &str) -> usize {
    let row = MODULES.iter().position(|row| row.contains(&module));
    row.unwrap_or_else(|| panic!("`{module}` has no place in the layers: give it one"))
}

/// Returns the top-level modules of this crate that a source file names.
fn named(source: &str) -> impl Iterator<Item = &str> {
    let code = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        })
}

#[test]
fn no_module_of_the_host_knows_what_stands_above_it() {
    let root = workspace().join("host/src");
    let files = sources(&root);
    assert!(files.len() > 20, "the sources are found");
    for file in files {
        let path = file.strip_prefix(&root).expect("it is below the root");
        let first = path
            .iter()
            .next()
            .and_then(|part| Path::new(part).file_stem());
        let module = first
            .and_then(|stem| stem.to_str())
            .expect("a module's name");
        let source = read(&file);
        for other in named(&source).filter(|&other| other != module) {
            assert!(
                rank(other) < rank(module),
                "{}: `{module}` names `{other}`",
                path.display()
            );
        }
    }
}

#[test]
fn no_crate_depends_on_what_stands_above_it() {
    for (folder, allowed) in CRATES {
        let manifest = read(&workspace().join(folder).join("Cargo.toml"));
        let dependencies = manifest
            .split("[dev-dependencies]")
            .next()
            .expect("the part before");
        let ours = dependencies.lines().filter_map(|line| {
            let name = line.split(['.', ' ', '=']).next()?;
            name.starts_with("admission-").then_some(name)
        });
        for dependency in ours {
            assert!(
                allowed.contains(&dependency),
                "{folder} depends on {dependency}"
            );
        }
    }
}
