//! The demonstration of the example policy.

use std::fs;
use std::path::{Path, PathBuf};

use conformance::Pin;

/// Returns its folder.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/wasm-policy/demo")
}

/// Reads the pins of its resolved-versions file.
pub(crate) fn pins() -> Vec<Pin> {
    let text = fs::read_to_string(folder().join("cipd.versions")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<_> = lines.collect();
    let entries = lines.split(|line| line.trim().is_empty());
    let pins = entries.filter_map(|entry| match entry {
        [package, _, instance] => Some(Pin::new(package.trim(), instance.trim()).unwrap()),
        _ => None,
    });
    pins.collect()
}
