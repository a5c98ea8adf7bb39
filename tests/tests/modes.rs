//! The scenarios of the reference's own tests, with the plugin `modes` and a peer host.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;

use admission_proto::wire::cipd::InstanceMetadata;
use admission_proto::wire::plugin::ListMetadataResponse;
use conformance::guarded;
use conformance::peer::host::{Behaviour, Event, PeerHost, Plugin, admission};
use tonic::Status;

const FAILED_PRECONDITION: i32 = 9;

async fn launch(host: &PeerHost, kind: &str, mode: &str) -> Plugin {
    launch_with(host, kind, mode, Behaviour::default()).await
}

async fn launch_with(host: &PeerHost, kind: &str, mode: &str, behaviour: Behaviour) -> Plugin {
    let command = [env!("CARGO_BIN_EXE_modes"), kind, mode];
    host.launch(command, behaviour).await
}

/// Launches a plugin that sends a verdict with the name of its mode as the ID.
async fn basic(host: &PeerHost, mode: &str) -> Plugin {
    let mut plugin = launch(host, "PLUGIN_BASIC", mode).await;
    assert_eq!(plugin.verdict().await, verdict(mode, 0, ""));
    plugin
}

/// Launches a plugin and waits until it has connected.
async fn connected(host: &PeerHost, mode: &str, behaviour: Behaviour) -> Plugin {
    let mut plugin = launch_with(host, "PLUGIN_ADMISSION", mode, behaviour).await;
    plugin.connected().await;
    plugin
}

fn verdict(id: &str, code: i32, message: &str) -> (String, i32, String) {
    (id.into(), code, message.into())
}

#[tokio::test]
async fn a_basic_plugin_runs_until_stdin_ends() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = basic(&host, "WAIT").await;
        plugin.end_stdin();
        let (exit, stderr) = plugin.exit().await;
        assert!(exit.success() && stderr.is_empty(), "{exit}, {stderr:?}");
    })
    .await;
}

#[tokio::test]
async fn a_basic_plugin_exits_cleanly_if_its_call_fails() {
    guarded(async {
        let host = PeerHost::start();
        let failing = Behaviour {
            verdicts: Err(Status::unavailable("the host stops")),
            ..Behaviour::default()
        };
        for mode in ["WAIT", "NUM_0"] {
            let mut plugin = launch_with(&host, "PLUGIN_BASIC", mode, failing.clone()).await;
            assert_eq!(plugin.verdict().await, verdict(mode, 0, ""));
            plugin.end_stdin();
            let (exit, stderr) = plugin.exit().await;
            assert!(exit.success() && stderr.is_empty(), "{exit}, {stderr:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_stuck_plugin_runs_until_it_is_killed() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = basic(&host, "STUCK_IN_TERMINATION").await;
        plugin.end_stdin();
        plugin.kill();
        assert_eq!(plugin.exit().await.0.signal(), Some(9));
    })
    .await;
}

#[tokio::test]
async fn plugins_crash_on_start_and_after_their_call() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = basic(&host, "CRASHING_AFTER_RPC").await;
        assert_eq!(plugin.exit().await.0.code(), Some(2));
        for (kind, mode) in [
            ("PLUGIN_BASIC", "CRASHING_ON_START"),
            ("PLUGIN_ADMISSION", "CRASHING_WHEN_CONNECTING"),
        ] {
            let command = [env!("CARGO_BIN_EXE_modes"), kind, mode];
            let mut plugin = host.spawn(command, Behaviour::default());
            assert_eq!(plugin.exit().await.0.code(), Some(2));
        }
    })
    .await;
}

#[tokio::test]
async fn a_basic_plugin_logs_at_three_levels_in_order() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = basic(&host, "LOG_STUFF_AND_EXIT").await;
        for (severity, text) in [("info", "Info"), ("warning", "Warning"), ("error", "Error")] {
            assert_eq!(plugin.line().await, (severity.into(), text.into()));
        }
        assert!(plugin.exit().await.0.success());
    })
    .await;
}

#[tokio::test]
async fn five_plugins_run_concurrently() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugins = Vec::new();
        for n in 0..5 {
            plugins.push(basic(&host, &format!("NUM_{n}")).await);
        }
        for plugin in &mut plugins {
            plugin.end_stdin();
            assert!(plugin.exit().await.0.success());
        }
    })
    .await;
}

#[tokio::test]
async fn an_unknown_mode_is_named_in_the_error() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = launch(&host, "PLUGIN_BASIC", "NONE").await;
        plugin.verdict().await;
        let (exit, stderr) = plugin.exit().await;
        assert_eq!(exit.code(), Some(1));
        assert!(stderr.contains("no mode NONE"), "{stderr}");
    })
    .await;
}

#[tokio::test]
async fn good_packages_of_the_expected_service_are_admitted() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = connected(&host, "NORMAL_REPLY", Behaviour::default()).await;
        plugin.ask("1", "good/a").await;
        assert_eq!(plugin.verdict().await, verdict("1", 0, ""));
        plugin.ask("2", "bad/a").await;
        assert_eq!(plugin.line().await.0, "info");
        let boo = verdict("2", FAILED_PRECONDITION, "the plugin says boo");
        assert_eq!(plugin.verdict().await, boo);
        plugin
            .send(admission("3", "https://other.example.com", "good/a"))
            .await;
        let unexpected = verdict("3", FAILED_PRECONDITION, "unexpected host");
        assert_eq!(plugin.verdict().await, unexpected);
        assert!(plugin.close().await.0.success());
    })
    .await;
}

#[tokio::test]
async fn a_thousand_checks_get_a_verdict() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = connected(&host, "NORMAL_REPLY", Behaviour::default()).await;
        for n in 0..1000 {
            plugin.ask(&n.to_string(), "good/a").await;
        }
        let mut ids = BTreeSet::new();
        for _ in 0..1000 {
            let (id, code, _) = plugin.verdict().await;
            assert_eq!(code, 0);
            ids.insert(id);
        }
        assert_eq!(ids.len(), 1000);
        assert!(plugin.close().await.0.success());
    })
    .await;
}

/// Answers metadata calls with 15 numbered entries, in pages of the requested size.
fn fifteen_entries() -> Behaviour {
    Behaviour {
        metadata: Arc::new(|request| {
            let start = request.page_token.parse().unwrap_or(0);
            let end = 15.min(start + request.page_size);
            let entry = |n| InstanceMetadata {
                key: request.keys.concat(),
                value: format!("metadata-value-{n}").into_bytes(),
                ..InstanceMetadata::default()
            };
            let page = ListMetadataResponse {
                metadata: (start..end).map(entry).collect(),
                next_page_token: if end < 15 {
                    end.to_string()
                } else {
                    String::new()
                },
            };
            Box::pin(async { Ok(page) })
        }),
        ..Behaviour::default()
    }
}

#[tokio::test]
async fn all_metadata_is_visited_in_pages_of_seven() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = connected(&host, "VISIT_METADATA_ALL", fifteen_entries()).await;
        plugin.ask("1", "good/a").await;
        for token in ["", "7", "14"] {
            let Event::Listed(request) = plugin.event().await else {
                panic!("not a metadata call");
            };
            assert_eq!(request.keys, ["some-key"]);
            assert_eq!((request.page_size, &request.page_token[..]), (7, token));
        }
        assert_eq!(plugin.verdict().await, verdict("1", 0, ""));
        assert!(plugin.close().await.0.success());
    })
    .await;
}

#[tokio::test]
async fn a_visit_of_one_entry_fetches_one_page_of_twenty() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = connected(&host, "VISIT_METADATA_ONE", fifteen_entries()).await;
        plugin.ask("1", "good/a").await;
        let Event::Listed(request) = plugin.event().await else {
            panic!("not a metadata call");
        };
        assert_eq!((request.page_size, &request.page_token[..]), (20, ""));
        assert_eq!(plugin.verdict().await, verdict("1", 0, ""));
        assert!(plugin.close().await.0.success());
    })
    .await;
}

#[tokio::test]
async fn unexpected_metadata_and_repository_errors_fail_the_check() {
    guarded(async {
        let host = PeerHost::start();
        let none = Behaviour {
            metadata: Arc::new(|_| Box::pin(async { Ok(ListMetadataResponse::default()) })),
            ..Behaviour::default()
        };
        let mut plugin = connected(&host, "VISIT_METADATA_ALL", none).await;
        plugin.ask("1", "good/a").await;
        plugin.event().await;
        assert_eq!(plugin.verdict().await.1, 13);
        assert!(plugin.close().await.0.success());

        let failing = Behaviour {
            metadata: Arc::new(|_| Box::pin(async { Err(Status::not_found("no such package")) })),
            ..Behaviour::default()
        };
        let mut plugin = connected(&host, "VISIT_METADATA_ALL", failing).await;
        plugin.ask("1", "good/a").await;
        plugin.event().await;
        assert_eq!(plugin.verdict().await, verdict("1", 5, "no such package"));
        assert!(plugin.close().await.0.success());
    })
    .await;
}

#[tokio::test]
async fn a_plugin_crashes_on_its_second_check() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = connected(&host, "CRASH_ON_SECOND_REQUEST", Behaviour::default()).await;
        plugin.ask("1", "good/a").await;
        assert_eq!(plugin.verdict().await, verdict("1", 0, ""));
        plugin.ask("2", "good/a").await;
        assert_eq!(plugin.exit().await.0.code(), Some(2));
    })
    .await;
}

#[tokio::test]
async fn a_plugin_with_blocked_checks_can_be_closed() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = connected(&host, "BLOCK_REQUEST", Behaviour::default()).await;
        plugin.ask("1", "good/a").await;
        assert!(plugin.close().await.0.success());

        let mut plugin = connected(&host, "BLOCK_ALL_BUT_FIRST", Behaviour::default()).await;
        for n in 0..1000 {
            plugin.ask(&n.to_string(), "good/a").await;
        }
        assert_eq!(plugin.verdict().await.1, 0);
        assert!(plugin.close().await.0.success());
    })
    .await;
}

#[tokio::test]
async fn a_plugin_that_does_not_connect_exits_when_stdin_ends() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = launch(&host, "PLUGIN_ADMISSION", "NOT_CONNECTING").await;
        plugin.end_stdin();
        assert!(plugin.exit().await.0.success());
    })
    .await;
}

#[tokio::test]
async fn a_plugin_can_be_closed_right_after_launch() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = launch(&host, "PLUGIN_ADMISSION", "NORMAL_REPLY").await;
        assert!(plugin.close().await.0.success());
    })
    .await;
}

#[tokio::test]
async fn a_basic_plugin_exits_cleanly_after_its_host_stopped() {
    guarded(async {
        let mut host = PeerHost::start();
        let mut plugin = basic(&host, "WAIT").await;
        host.stop();
        plugin.end_stdin();
        assert!(plugin.exit().await.0.success());
    })
    .await;
}
