//! Calls of a plugin, and their limits.

use admission_host::{
    Code, ErrorKind, Exit, Host, InstanceMetadata, LogLevel, MemoryRepository, PluginState,
};
use conformance::logs::Lines;
use conformance::repositories::{Counted, Failing, Stuck};
use conformance::{GRACE, Status, error_of, eventually, host, host_with, options, pin};
use futures_util::future::join_all;
use tracing::Level;

use super::{peer, report};

tests! {
    async fn verdicts_arrive_with_code_message_and_details() {
        let plugin = host().plugin(peer(""));
        for admitted in ["allow/a", "ok/a"] {
            plugin.check_admission(&pin(admitted)).wait().await.expect("admitted");
        }
        let denied = error_of(&plugin.check_admission(&pin("deny/a"))).await;
        assert_eq!(denied.kind(), ErrorKind::Denied);
        assert_eq!(denied.to_string(), "deny/a is denied");
        for code in [1, 7, 12_345] {
            let rejected = error_of(&plugin.check_admission(&pin(&format!("code/{code}")))).await;
            assert_eq!(rejected.kind(), ErrorKind::PolicyError);
            assert_eq!(rejected.code(), Some(Code::from(code)));
        }
        let detailed = error_of(&plugin.check_admission(&pin("detail/a"))).await;
        let admission_host::CheckError::Denied { status, .. } = detailed else {
            panic!("not denied: {detailed}");
        };
        assert_eq!(status.details[0].value, [0, 159, 255]);
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_thousand_checks_are_all_judged() {
        let plugin = host().plugin(peer(""));
        let pins: Vec<_> = (0..1000).map(|n| pin(&format!("allow/{n}"))).collect();
        let promises: Vec<_> = pins.iter().map(|pin| plugin.check_admission(pin)).collect();
        for outcome in join_all(promises.iter().map(|promise| promise.wait())).await {
            outcome.expect("admitted");
        }
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_second_list_admissions_is_rejected_and_the_first_continues() {
        let plugin = host().plugin(peer("connect-twice"));
        for n in 0..2 {
            let error = error_of(&plugin.check_admission(&pin(&format!("a/{n}")))).await;
            assert_eq!(error.to_string(), "FailedPrecondition already called ListAdmissions");
        }
        assert_eq!(plugin.state(), PluginState::Running);
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_message_over_4_mib_is_rejected_and_the_plugin_keeps_running() {
        let plugin = host().plugin(peer("oversized"));
        assert_eq!(report(&plugin).await, "ResourceExhausted; OK");
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_second_message_in_a_call_is_rejected() {
        let plugin = host().plugin(peer("second-message"));
        let rejected = "Internal the call has more than one message";
        assert_eq!(report(&plugin).await, format!("{rejected}; {rejected}; OK"));
        plugin.close(GRACE).await;
    }

    async fn requests_being_received_are_limited_to_64_mib() {
        let plugin = host().plugin(peer("long-calls"));
        assert_eq!(
            report(&plugin).await,
            "ResourceExhausted concurrent calls take too much memory; OK"
        );
        plugin.close(GRACE).await;
    }

    async fn severities_are_those_of_the_reference() {
        let lines = Lines::collect();
        let host = Host::new(options().plugin_log_level(LogLevel::Debug));
        let plugin = host.plugin(peer(""));
        plugin.check_admission(&pin("log/a")).wait().await.expect("admitted");
        let logged: Vec<_> = lines
            .of_plugin("peer")
            .into_iter()
            .filter(|line| line.message.starts_with("a line of "))
            .map(|line| (line.level, line.message))
            .collect();
        let expected = [
            (Level::DEBUG, "a line of debug"),
            (Level::INFO, "a line of info"),
            (Level::WARN, "a line of warning"),
            (Level::ERROR, "a line of error"),
            (Level::INFO, "a line of fatal"),
        ];
        assert_eq!(logged, expected.map(|(level, message)| (level, message.to_owned())));
        plugin.close(GRACE).await;
    }

    async fn log_lines_are_rate_limited_and_dropped_lines_are_counted() {
        let lines = Lines::collect();
        let plugin = host().plugin(peer("many-logs"));
        plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        plugin.close(GRACE).await;
        let lines = lines.of_plugin("many-logs");
        let of_plugin = |line: &&conformance::logs::Line| line.message.starts_with("line ");
        let logged = lines.iter().filter(of_plugin).count();
        assert!(logged >= 200, "{logged}");
        assert!(logged < 10_000, "{logged}");
        let counted = |line: &conformance::logs::Line| line.message == "dropped log lines of the plugin";
        assert!(lines.iter().any(counted));
    }

    async fn stdout_is_logged_line_by_line() {
        let lines = Lines::collect();
        let plugin = host().plugin(peer("stdout"));
        plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        plugin.close(GRACE).await;
        let logged: Vec<_> = lines
            .of_plugin("stdout")
            .into_iter()
            .filter(|line| line.level == Level::INFO)
            .map(|line| line.message)
            .collect();
        assert_eq!(logged, ["a line of stdout", r"and another, \u{1b}[31mred", "without an end"]);
    }

    async fn ten_thousand_verdicts_on_unknown_checks_are_ignored_and_counted() {
        let plugin = host().plugin(peer("many-verdicts"));
        plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        assert_eq!(plugin.ignored_input().verdicts, 10_000);
        plugin.close(GRACE).await;
    }

    async fn ten_thousand_concurrent_metadata_calls_share_a_few_fetches() {
        let pin = pin("a");
        let repository = Counted::with_entries(&pin, 1);
        let plugin = host_with(repository.clone()).plugin(peer("many-calls"));
        let error = error_of(&plugin.check_admission(&pin)).await;
        assert_eq!(error.to_string(), "10000");
        assert!(repository.calls() < 10_000);
        plugin.close(GRACE).await;
    }

    async fn metadata_pages_fit_in_one_message() {
        let pin = pin("metadata/a");
        let mut repository = MemoryRepository::new();
        let entries = (0..16).map(|n| InstanceMetadata::new(format!("k{n:02}"), vec![b'x'; 512 << 10]));
        let entries: Vec<_> = entries.collect();
        let keys: Vec<_> = entries.iter().map(|entry| entry.key.clone()).collect();
        repository.insert(&pin, entries);
        let plugin = host_with(repository).plugin(peer(""));
        let error = error_of(&plugin.check_admission(&pin)).await;
        assert_eq!(error.to_string(), keys.join(" "));
        plugin.close(GRACE).await;
    }

    async fn an_entry_too_large_for_a_message_fails_its_call() {
        let pin = pin("metadata/a");
        let mut repository = MemoryRepository::new();
        repository.insert(&pin, vec![InstanceMetadata::new("k", vec![b'x'; 5 << 20])]);
        let plugin = host_with(repository).plugin(peer(""));
        let error = error_of(&plugin.check_admission(&pin)).await;
        assert_eq!(error.code(), Some(Code::RESOURCE_EXHAUSTED));
        assert_eq!(
            error.to_string(),
            "a page of metadata takes 5242927 bytes, over the limit of 4194272"
        );
        plugin.close(GRACE).await;
    }

    async fn an_error_of_the_repository_reaches_the_plugin() {
        let failing = Failing(Status::new(Code::NOT_FOUND, "no such package: 100 %\n"));
        let plugin = host_with(failing).plugin(peer(""));
        let error = error_of(&plugin.check_admission(&pin("metadata/a"))).await;
        assert_eq!(error.code(), Some(Code::NOT_FOUND));
        assert_eq!(error.to_string(), r"no such package: 100 %\n");
        plugin.close(GRACE).await;
    }

    async fn an_error_too_long_for_headers_is_truncated() {
        let failing = Failing(Status::new(Code::INTERNAL, "\u{1}".repeat(1 << 20)));
        let plugin = host_with(failing).plugin(peer(""));
        let error = error_of(&plugin.check_admission(&pin("metadata/a"))).await;
        assert_eq!(error.code(), Some(Code::INTERNAL));
        assert!(error.to_string().ends_with("(truncated, 1048576 bytes)"));
        plugin.close(GRACE).await;
    }

    async fn a_cancelled_metadata_call_cancels_its_fetch() {
        let stuck = Stuck::default();
        let plugin = host_with(stuck.clone()).plugin(peer("cancel-call"));
        let first = plugin.check_admission(&pin("a"));
        eventually(|| stuck.under_way() == 1).await;
        let second = plugin.check_admission(&pin("b"));
        eventually(|| stuck.under_way() == 0).await;
        first.wait().await.expect("admitted");
        second.wait().await.expect("admitted");
        plugin.close(GRACE).await;
    }

    async fn a_plugin_may_make_calls_without_list_admissions() {
        let lines = Lines::collect();
        let plugin = host().plugin(peer("no-stream"));
        let promise = plugin.check_admission(&pin("a"));
        lines.wait_for("no-stream", "logged without a stream").await;
        lines.wait_for("no-stream", "metadata: Unimplemented").await;
        assert_eq!(plugin.ignored_input().verdicts, 1);
        assert_eq!(plugin.state(), PluginState::Launching);
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert_eq!(error_of(&promise).await.kind(), ErrorKind::Aborted);
    }

    async fn a_plugin_may_use_several_connections() {
        let plugin = host().plugin(peer("reconnect"));
        for n in 0..10 {
            plugin.check_admission(&pin(&format!("a/{n}"))).wait().await.expect("admitted");
        }
        plugin.close(GRACE).await;
    }
}
