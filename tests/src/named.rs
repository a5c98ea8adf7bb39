//! Fixtures under another name, by which a test finds their log lines.

use std::os::unix::fs::symlink;

use admission_host::{Component, Source};
use tempfile::TempDir;

use crate::modes::{Mode, component, native, with_argument};

/// The fixture under another name.
#[derive(Debug)]
pub struct Named {
    /// The plugin, whose file is deleted when this is dropped.
    pub source: Source,
    _folder: TempDir,
}

impl Named {
    /// Creates a fixture called `name` with this `argument`.
    ///
    /// # Panics
    ///
    /// If the folder for temporary files is full.
    #[must_use]
    pub fn new(mode: Mode, name: &str, argument: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        let source = if mode == Mode::Component {
            let path = path.with_extension("wasm");
            symlink(component("conformance-fixture"), &path).expect("the folder takes it");
            with_argument(Component::from_file(path), argument).into()
        } else {
            symlink(native("conformance-fixture"), &path).expect("the folder takes it");
            mode.command([path.as_os_str(), argument.as_ref()])
        };
        Self {
            source,
            _folder: folder,
        }
    }
}
