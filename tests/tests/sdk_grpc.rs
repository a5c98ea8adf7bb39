//! Plugins built with the SDK, under a host that speaks gRPC as the reference does.

mod checks;
mod ends;
mod handshake;
mod metadata;
mod pings;
mod wire;

use conformance::modes::native;
use conformance::peer::host::{Behaviour, PeerHost, Plugin};

const FAILED_PRECONDITION: i32 = 9;

/// Returns a host and the fixture, connected to it.
async fn fixture(behaviour: Behaviour) -> (PeerHost, Plugin) {
    let host = PeerHost::start();
    let mut plugin = host
        .launch([native("conformance-fixture")], behaviour)
        .await;
    plugin.connected().await;
    (host, plugin)
}

/// Returns a host and the example policy, connected to it. The policy prints errors with their
/// causes.
async fn policy(behaviour: Behaviour) -> (PeerHost, Plugin) {
    let host = PeerHost::start();
    let mut plugin = host.launch([native("wasm-policy")], behaviour).await;
    plugin.connected().await;
    (host, plugin)
}

fn verdict(id: &str, code: i32, message: &str) -> (String, i32, String) {
    (id.into(), code, message.into())
}

/// Closes the plugin, and expects a clean exit.
async fn close(mut plugin: Plugin) {
    let (exit, stderr) = plugin.close().await;
    assert!(exit.success() && stderr.is_empty(), "{exit}, {stderr:?}");
}
