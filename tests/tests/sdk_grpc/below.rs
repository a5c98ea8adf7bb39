//! The SDK's connection, used without its run loop.

use std::process::ExitStatus;

use conformance::guarded;
use conformance::peer::host::{Behaviour, Event, PeerHost, Plugin, terminating};
use tonic::Status;

use crate::metadata::{entry, listed, page};
use crate::{FAILED_PRECONDITION, verdict};

async fn launch(host: &PeerHost, behaviour: Behaviour) -> Plugin {
    let command = [env!("CARGO_BIN_EXE_below_the_loop")];
    host.launch(command, behaviour).await
}

/// A backtrace may follow what the plugin says.
fn assert_failed((exit, stderr): (ExitStatus, String), text: &str) {
    assert_eq!(exit.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with(&format!("Error: {text}")), "{stderr}");
}

#[tokio::test]
async fn a_plugin_without_the_loop_judges_until_the_stream_ends() {
    guarded(async {
        let host = PeerHost::start();
        let behaviour = page(vec![entry("k0", ""), entry("k1", "")], "and on");
        let mut plugin = launch(&host, behaviour).await;
        let Event::Connected(request) = plugin.event().await else {
            panic!("nothing comes before it is connected");
        };
        assert_eq!(request.protocol_version, 1);
        assert_eq!(request.plugin_version, "below the loop");
        plugin.ask("1", "tools/a").await;
        let request = listed(&mut plugin).await;
        assert_eq!(request.package, "tools/a");
        assert_eq!(request.keys, ["a"]);
        assert_eq!(
            (request.page_size, &request.page_token[..]),
            (3, "from here")
        );
        assert_eq!(plugin.line().await, ("debug".into(), "judged".into()));
        let denial = verdict("1", FAILED_PRECONDITION, "k0 k1; and on");
        assert_eq!(plugin.verdict().await, denial);
        plugin.end_stream(Status::ok("")).await;
        let (exit, stderr) = plugin.exit().await;
        assert!(exit.success() && stderr.is_empty(), "{exit}, {stderr:?}");
    })
    .await;
}

#[tokio::test]
async fn a_plugin_without_the_loop_hears_how_the_stream_ends() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = launch(&host, Behaviour::default()).await;
        plugin.connected().await;
        plugin.end_stream(terminating()).await;
        assert_failed(plugin.exit().await, "terminating");

        let mut host = PeerHost::start();
        let mut plugin = launch(&host, Behaviour::default()).await;
        plugin.connected().await;
        host.stop();
        let lost = "the connection to the host is lost: ";
        assert_failed(plugin.exit().await, lost);
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_opened_by_a_handshake_only() {
    guarded(async {
        let host = PeerHost::start();
        for (line, what) in [
            (
                "{garbage\n",
                "failed to read the handshake message\n\nCaused by:\n    \
                 key must be a string at line 1 column 2",
            ),
            (
                "\x01\n",
                "the host speaks the stdio wire, which this plugin does not",
            ),
        ] {
            let command = [env!("CARGO_BIN_EXE_below_the_loop")];
            let mut plugin = host.spawn(command, Behaviour::default());
            plugin.write(line.as_bytes()).await;
            assert_failed(plugin.exit().await, what);
        }
    })
    .await;
}
