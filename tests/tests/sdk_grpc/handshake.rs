//! An invalid handshake ends the plugin at once, with an error that says why.

use std::net::TcpListener;

use conformance::guarded;
use conformance::modes::native;
use conformance::peer::host::{Behaviour, PeerHost, Plugin};

/// Returns a plugin before its handshake. It prints errors with their causes.
fn before_handshake() -> (PeerHost, Plugin) {
    let host = PeerHost::start();
    let plugin = host.spawn([native("wasm-policy")], Behaviour::default());
    (host, plugin)
}

/// Returns what a plugin prints when `line` makes it fail while stdin stays open.
async fn error_for(line: &[u8]) -> String {
    let (_host, mut plugin) = before_handshake();
    plugin.write(line).await;
    let (exit, stderr) = plugin.exit().await;
    assert_eq!(exit.code(), Some(1), "{stderr}");
    stderr
}

#[tokio::test]
async fn an_invalid_handshake_ends_the_plugin_at_once() {
    guarded(async {
        for (line, what) in [
            ("{garbage\n", "key must be a string at line 1 column 2"),
            (
                "{\"port\":1}\n",
                "missing field `ticket` at line 1 column 10",
            ),
            (
                "{\"ticket\":\"t\"}\n",
                "missing field `port` at line 1 column 14",
            ),
            (
                "{\"port\":1,\"ticket\":\"a\\nb\"}\n",
                "failed to parse header value",
            ),
        ] {
            assert_eq!(
                error_for(line.as_bytes()).await,
                format!("Error: failed to read the handshake message: {what}\n")
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_blank_line_ends_the_plugin_without_revealing_the_ticket() {
    guarded(async {
        for blank in ["\n", " \r\n", " \t\n"] {
            let line = format!("{blank}{{\"port\":1,\"ticket\":\"secret\"}}\n");
            let stderr = error_for(line.as_bytes()).await;
            assert!(
                stderr.starts_with("Error: failed to read the handshake message: EOF while"),
                "{blank:?}: {stderr}"
            );
            assert!(!stderr.contains("secret"), "{stderr}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_line_over_the_limit_ends_the_plugin_at_once() {
    guarded(async {
        let long = [b"{\"port\":1,\"ticket\":\"".as_slice(), &[b'x'; 8192]].concat();
        assert_eq!(
            error_for(&long).await,
            "Error: failed to read the handshake message: no line feed within 4096 bytes\n"
        );
    })
    .await;
}

#[tokio::test]
async fn a_port_without_a_listener_ends_the_plugin_at_once() {
    guarded(async {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("it has an address").port()
        };
        let line = format!("{{\"port\":{port},\"ticket\":\"t\"}}\n");
        assert_eq!(
            error_for(line.as_bytes()).await,
            format!(
                "Error: failed to connect to the plugin host at 127.0.0.1:{port}: \
                 Connection refused (os error 111)\n"
            )
        );
    })
    .await;
}

#[tokio::test]
async fn an_end_of_stdin_inside_the_line_is_an_error_and_before_it_is_not() {
    guarded(async {
        let (_host, mut plugin) = before_handshake();
        plugin.write(b"{\"port\":").await;
        plugin.end_stdin();
        let (exit, stderr) = plugin.exit().await;
        assert_eq!(exit.code(), Some(1));
        assert_eq!(
            stderr,
            "Error: failed to read the handshake message: stdin ended inside the line\n"
        );
        let (_host, mut plugin) = before_handshake();
        plugin.end_stdin();
        assert!(plugin.exit().await.0.success());
    })
    .await;
}

#[tokio::test]
async fn a_handshake_may_arrive_byte_by_byte_with_white_space_and_unknown_fields() {
    guarded(async {
        let (host, mut plugin) = before_handshake();
        let line = plugin.handshake(host.port());
        let fields = line.trim_start_matches('{').trim_end_matches("}\n");
        let line = format!(" \t{{ {fields} , \"newer\":[1] }}\r\nmore\n");
        for byte in line.bytes() {
            plugin.write(&[byte]).await;
        }
        plugin.connected().await;
        assert!(plugin.close().await.0.success());
    })
    .await;
}

#[tokio::test]
async fn an_unknown_ticket_is_an_error() {
    guarded(async {
        let (host, mut plugin) = before_handshake();
        plugin.revoke();
        plugin.write(plugin.handshake(host.port()).as_bytes()).await;
        let (exit, stderr) = plugin.exit().await;
        assert_eq!(exit.code(), Some(1));
        assert_eq!(
            stderr,
            "Error: the host ended the stream of admissions with PERMISSION_DENIED: \
             invalid ticket in the request\n"
        );
    })
    .await;
}
