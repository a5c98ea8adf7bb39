//! The peer as a plugin.

use std::os::unix::fs::symlink;
use std::sync::OnceLock;

use admission_host::{NativeCommand, Plugin, Wire};
use conformance::{error_of, pin};
use tempfile::TempDir;

/// Returns the peer that does what its `argument` says. Logs and errors call it by that.
pub(crate) fn peer(argument: &str) -> NativeCommand {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    let name = if argument.is_empty() {
        "peer"
    } else {
        argument
    };
    let path = folder.path().join(name);
    // Another test may have made it.
    let _there = symlink(env!("CARGO_BIN_EXE_peer-plugin"), &path);
    assert!(path.exists(), "the folder takes it");
    NativeCommand::new([path.as_os_str(), argument.as_ref()]).wire(Wire::Grpc)
}

/// Returns what a peer that denies with what it has found out has found out.
pub(crate) async fn told(plugin: &Plugin) -> String {
    error_of(&plugin.check_admission(&pin("tell/me")))
        .await
        .to_string()
}
