//! A plugin exits at once when its session ends, with the right exit status.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::ExitStatus;
use std::sync::Arc;

use conformance::guarded;
use conformance::modes::native;
use conformance::peer::host::{Behaviour, Event, PeerHost, Plugin, terminating};
use tonic::{Code, Status};

use super::{fixture, policy, verdict};

/// Returns a connected plugin. If `answered`, it has settled a check, so the stream of
/// admissions has sent its headers.
async fn start_policy(answered: bool, behaviour: Behaviour) -> (impl Sized, Plugin) {
    let (host, mut plugin) = policy(behaviour).await;
    if answered {
        plugin.ask("0", "experimental/a").await;
        plugin.verdict().await;
    }
    (host, plugin)
}

fn assert_clean_exit((exit, stderr): (ExitStatus, String)) {
    assert!(exit.success() && stderr.is_empty(), "{exit}, {stderr:?}");
}

fn assert_failed((exit, stderr): (ExitStatus, String), text: &str) {
    assert_eq!(exit.code(), Some(1), "{stderr}");
    assert_eq!(stderr, format!("Error: {text}\n"));
}

fn assert_lost((exit, stderr): (ExitStatus, String), pending: usize) {
    let text = format!("Error: lost the connection to the host (pending checks: {pending}): ");
    assert_eq!(exit.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with(&text), "{stderr}");
}

#[tokio::test]
async fn a_stream_that_ends_without_error_ends_the_plugin_while_stdin_is_open() {
    guarded(async {
        for answered in [false, true] {
            let (_host, mut plugin) = start_policy(answered, Behaviour::default()).await;
            plugin.end_stream(Status::ok("")).await;
            assert_clean_exit(plugin.exit().await);
            for code in [Code::Aborted, Code::Cancelled, Code::Unavailable] {
                let (_host, mut plugin) = start_policy(answered, Behaviour::default()).await;
                plugin.end_stream(Status::new(code, "enough")).await;
                assert_clean_exit(plugin.exit().await);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn every_other_status_of_the_stream_is_an_error_that_names_it() {
    guarded(async {
        for (code, name) in [
            (Code::Unknown, "UNKNOWN"),
            (Code::InvalidArgument, "INVALID_ARGUMENT"),
            (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            (Code::NotFound, "NOT_FOUND"),
            (Code::AlreadyExists, "ALREADY_EXISTS"),
            (Code::PermissionDenied, "PERMISSION_DENIED"),
            (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
            (Code::FailedPrecondition, "FAILED_PRECONDITION"),
            (Code::OutOfRange, "OUT_OF_RANGE"),
            (Code::Unimplemented, "UNIMPLEMENTED"),
            (Code::Internal, "INTERNAL"),
            (Code::DataLoss, "DATA_LOSS"),
            (Code::Unauthenticated, "UNAUTHENTICATED"),
        ] {
            for answered in [false, true] {
                let (_host, mut plugin) = start_policy(answered, Behaviour::default()).await;
                plugin.end_stream(Status::new(code, "that is why")).await;
                let text =
                    format!("the host ended the stream of admissions with {name}: that is why");
                assert_failed(plugin.exit().await, &text);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_pending_check_is_settled_after_the_stream_ends() {
    guarded(async {
        let (release, released) = tokio::sync::watch::channel(false);
        let behaviour = Behaviour {
            metadata: Arc::new(move |_| {
                let mut released = released.clone();
                Box::pin(async move {
                    let open = released.wait_for(|released| *released).await;
                    open.map_err(|_| Status::internal("the test is over"))?;
                    Err(Status::not_found("nothing there"))
                })
            }),
            ..Behaviour::default()
        };
        let (_host, mut plugin) = fixture(behaviour).await;
        plugin.ask("1", "metadata").await;
        assert!(matches!(plugin.event().await, Event::Listed(_)));
        plugin.end_stream(Status::ok("")).await;
        release.send_replace(true);
        assert_eq!(plugin.verdict().await, verdict("1", 5, "nothing there"));
        assert_clean_exit(plugin.exit().await);
    })
    .await;
}

#[tokio::test]
async fn the_end_of_stdin_ends_a_plugin_whose_checks_never_end() {
    guarded(async {
        let (_host, mut plugin) = fixture(Behaviour::default()).await;
        for (id, package) in [("1", "hang"), ("2", "spin"), ("3", "spin"), ("4", "allow")] {
            plugin.ask(id, package).await;
        }
        plugin.end_stdin();
        assert!(plugin.exit().await.0.success());

        let (_host, mut plugin) = fixture(Behaviour::default()).await;
        plugin.ask("1", "hang").await;
        plugin.ask("2", "allow").await;
        plugin.verdict().await;
        plugin.end_stream(terminating()).await;
        plugin.end_stdin();
        assert_clean_exit(plugin.exit().await);
    })
    .await;
}

#[tokio::test]
async fn a_rejected_verdict_ends_the_plugin_with_an_error() {
    guarded(async {
        let behaviour = Behaviour {
            verdicts: Err(Status::internal("no room")),
            ..Behaviour::default()
        };
        let (_host, mut plugin) = policy(behaviour).await;
        plugin.ask("1", "experimental/a").await;
        plugin.verdict().await;
        assert_failed(
            plugin.exit().await,
            "the host rejected a verdict (pending checks: 1): no room",
        );
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_is_an_error_while_stdin_is_open() {
    guarded(async {
        let stuck = Behaviour {
            metadata: Arc::new(|_| Box::pin(std::future::pending())),
            ..Behaviour::default()
        };
        for (asked, pending) in [(false, 0), (true, 1)] {
            let (mut host, mut plugin) = policy(stuck.clone()).await;
            if asked {
                plugin.ask("1", "tools/a").await;
                assert!(matches!(plugin.event().await, Event::Listed(_)));
            }
            host.stop();
            assert_lost(plugin.exit().await, pending);
        }
    })
    .await;
}

#[tokio::test]
async fn a_port_of_another_server_is_an_error() {
    guarded(async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it has an address").port();
        let host = PeerHost::start();
        let mut plugin = host.spawn([native("wasm-policy")], Behaviour::default());
        plugin.write(plugin.handshake(port).as_bytes()).await;
        let (mut other, _) = listener.accept().expect("the plugin connects");
        other
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .expect("the plugin is there");
        assert_lost(plugin.exit().await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_plugin_ends_when_its_host_dies() {
    guarded(async {
        let (mut host, mut plugin) = fixture(Behaviour::default()).await;
        plugin.ask("1", "hang").await;
        plugin.ask("2", "allow").await;
        plugin.verdict().await;
        plugin.end_stdin();
        host.stop();
        assert_clean_exit(plugin.exit().await);
    })
    .await;
}
