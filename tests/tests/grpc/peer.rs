//! The peer as a plugin.

use std::os::unix::fs::symlink;
use std::sync::OnceLock;

use admission_host::{Host, NativeCommand, Plugin, Wire};
use conformance::{error_of, pin};
use tempfile::TempDir;

/// Returns the command of a peer in the mode `argument`, which is also the plugin's name.
pub(crate) fn peer(argument: &str) -> NativeCommand {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    let name = if argument.is_empty() {
        "peer"
    } else {
        argument
    };
    let path = folder.path().join(name);
    // An error means that another test has created the link.
    let _exists = symlink(env!("CARGO_BIN_EXE_peer-plugin"), &path);
    assert!(path.exists(), "the link was created");
    NativeCommand::new([path.as_os_str(), argument.as_ref()]).wire(Wire::Grpc)
}

/// Returns what a peer reports in the message of its denial.
pub(crate) async fn report(plugin: &Plugin) -> String {
    error_of(&plugin.check_admission(&pin("report")))
        .await
        .to_string()
}

/// Starts a plugin, and returns the port and the ticket in its handshake.
pub(crate) async fn handshake(host: &Host) -> (Plugin, u16, String) {
    let plugin = host.plugin(peer("report-handshake"));
    let report = report(&plugin).await;
    let (port, ticket) = report.split_once(' ').expect("two words");
    (plugin, port.parse().expect("a port"), ticket.to_owned())
}
