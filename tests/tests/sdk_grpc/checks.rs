//! Verdicts and lines of handlers reach the host unchanged.

use std::collections::BTreeSet;

use admission_proto::wire::rpc;
use conformance::guarded;
use conformance::modes::native;
use conformance::peer::host::{Behaviour, Event, PeerHost};

use super::{FAILED_PRECONDITION, close, fixture, verdict};

const ABORTED: i32 = 10;

#[tokio::test]
async fn a_plugin_asks_for_admissions_once_and_at_once() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = host
            .launch([native("conformance-fixture")], Behaviour::default())
            .await;
        let Event::Connected(request) = plugin.event().await else {
            panic!("the first event is the call for admissions");
        };
        assert_eq!(request.protocol_version, 1);
        assert_eq!(request.plugin_version, "fixture");
        plugin.ask("1", "allow").await;
        assert_eq!(plugin.verdict().await, verdict("1", 0, ""));
        close(plugin).await;
    })
    .await;
}

#[tokio::test]
async fn checks_are_admitted_and_denied() {
    guarded(async {
        let (_host, mut plugin) = fixture(Behaviour::default()).await;
        plugin.ask("1", "allow").await;
        assert_eq!(plugin.verdict().await, verdict("1", 0, ""));
        plugin.ask("2", "deny").await;
        let denied = verdict("2", FAILED_PRECONDITION, "deny is denied");
        assert_eq!(plugin.verdict().await, denied);
        close(plugin).await;
    })
    .await;
}

#[tokio::test]
async fn codes_out_of_range_and_details_arrive_unchanged() {
    guarded(async {
        let (_host, mut plugin) = fixture(Behaviour::default()).await;
        plugin.ask("1", "code/12345").await;
        assert_eq!(plugin.verdict().await, verdict("1", 12345, "as asked"));
        plugin.ask("2", "detail").await;
        let Event::Resolved(request) = plugin.event().await else {
            panic!("the next event is a verdict");
        };
        let details = request.status.expect("it denies").details;
        let [detail] = &details[..] else {
            panic!("{details:?} is not one detail");
        };
        assert_eq!(detail.type_url, "type.example.com/detail");
        assert_eq!(detail.value, [0, 159, 255]);
        close(plugin).await;
    })
    .await;
}

#[tokio::test]
async fn a_panic_aborts_its_check_and_the_plugin_keeps_running() {
    guarded(async {
        let (_host, mut plugin) = fixture(Behaviour::default()).await;
        plugin.ask("1", "panic").await;
        let text = "panic in the admission handler: the fixture panics";
        assert_eq!(plugin.verdict().await, verdict("1", ABORTED, text));
        plugin.ask("2", "allow").await;
        assert_eq!(plugin.verdict().await, verdict("2", 0, ""));
        assert!(plugin.close().await.0.success());
    })
    .await;
}

#[tokio::test]
async fn a_thousand_checks_get_one_verdict_each() {
    guarded(async {
        let (_host, mut plugin) = fixture(Behaviour::default()).await;
        for n in 0..1000 {
            plugin.ask(&n.to_string(), "allow").await;
        }
        let mut ids = BTreeSet::new();
        for _ in 0..1000 {
            ids.insert(plugin.verdict().await.0);
        }
        assert_eq!(ids.len(), 1000);
        close(plugin).await;
    })
    .await;
}

#[tokio::test]
async fn the_end_of_stdin_ends_two_thousand_pending_checks() {
    guarded(async {
        let (_host, mut plugin) = fixture(Behaviour::default()).await;
        plugin.ask("first", "allow").await;
        for n in 0..2000 {
            plugin.ask(&n.to_string(), "hang").await;
        }
        assert_eq!(plugin.verdict().await, verdict("first", 0, ""));
        close(plugin).await;
    })
    .await;
}

#[tokio::test]
async fn lines_arrive_in_order_and_before_the_verdict_that_follows_them() {
    guarded(async {
        let (_host, mut plugin) = fixture(Behaviour::default()).await;
        plugin.ask("1", "log").await;
        for (severity, text) in [
            ("info", "an info line :: {\"answer\":42}"),
            ("warning", "a warning line"),
            ("error", "an error line"),
        ] {
            assert_eq!(plugin.line().await, (severity.into(), text.into()));
        }
        assert_eq!(plugin.verdict().await, verdict("1", 0, ""));
        plugin.ask("2", "chatter/2000").await;
        for _ in 0..2000 {
            assert_eq!(plugin.line().await.1, "chatter");
        }
        assert_eq!(plugin.verdict().await, verdict("2", 0, ""));
        close(plugin).await;
    })
    .await;
}

#[tokio::test]
async fn no_verdict_overtakes_a_line_of_its_check() {
    guarded(async {
        let (_host, mut plugin) = fixture(Behaviour::default()).await;
        for n in 0..1000 {
            plugin.ask(&n.to_string(), "log").await;
        }
        let (mut lines, mut verdicts) = (0, 0);
        while verdicts < 1000 {
            match plugin.event().await {
                Event::Logged(line) => lines += usize::from(line.severity == "error"),
                Event::Resolved(_) => verdicts += 1,
                other => panic!("{other:?} was not expected"),
            }
            assert!(lines >= verdicts, "the last line of a check is missing");
        }
        close(plugin).await;
    })
    .await;
}

#[tokio::test]
async fn prints_of_a_policy_go_to_stderr() {
    guarded(async {
        let (_host, mut plugin) = fixture(Behaviour::default()).await;
        plugin.ask("1", "print").await;
        assert_eq!(plugin.verdict().await, verdict("1", 0, ""));
        let (exit, stderr) = plugin.close().await;
        assert!(exit.success());
        assert_eq!(stderr, "a stray line of the policy\n");
    })
    .await;
}

#[tokio::test]
async fn a_verdict_of_more_than_a_mebibyte_arrives_whole() {
    guarded(async {
        let (_host, mut plugin) = fixture(Behaviour::default()).await;
        let package = format!("deny/{}", "x".repeat(3 << 20));
        plugin.ask("1", &package).await;
        let Event::Resolved(request) = plugin.event().await else {
            panic!("the next event is a verdict");
        };
        let denial = rpc::Status {
            code: FAILED_PRECONDITION,
            message: format!("{package} is denied"),
            details: Vec::new(),
        };
        assert_eq!(request.status, Some(denial));
        close(plugin).await;
    })
    .await;
}
