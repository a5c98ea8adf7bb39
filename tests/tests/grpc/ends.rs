//! How a plugin ends, and the outcome of its checks.

use std::time::{Duration, Instant};

use admission_host::{ErrorKind, Exit, PluginOptions, PluginState};
use conformance::logs::Lines;
use conformance::repositories::Stuck;
use conformance::{GRACE, error_of, eventually, host, host_with, pin};

use super::peer;

tests! {
    async fn a_close_ends_the_stream_with_aborted_and_closes_stdin() {
        let lines = Lines::collect();
        let plugin = host().plugin(peer("report-end"));
        let promise = plugin.check_admission(&pin("a"));
        eventually(|| plugin.state() == PluginState::Running).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        lines.wait_for("report-end", "the stream ended with Aborted terminating").await;
        lines.wait_for("report-end", "stdin ended").await;
        assert_eq!(error_of(&promise).await.kind(), ErrorKind::Aborted);
    }

    async fn an_unknown_version_ends_the_stream_with_aborted_and_breaks_the_plugin() {
        let lines = Lines::collect();
        let plugin = host().plugin(peer("version-99"));
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(error.kind(), ErrorKind::Version);
        assert_eq!(error.to_string(), "unknown protocol version 99: expecting 1");
        let end = "the stream ended with Aborted unknown protocol version 99: expecting 1";
        lines.wait_for("version-99", end).await;
        // The peer exits only after the end of its stdin.
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_stream_that_ends_before_the_plugin_exits_breaks_the_plugin() {
        let lines = Lines::collect();
        let plugin = host().plugin(peer("cancel-stream"));
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(error.kind(), ErrorKind::Crash);
        assert_eq!(error.to_string(), "the admission plugin is terminating");
        assert_eq!(plugin.state(), PluginState::Broken);
        lines.wait_for("cancel-stream", "stdin ended").await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn an_exit_while_streaming_is_reported_with_its_status() {
        let plugin = host().plugin(peer(""));
        let error = error_of(&plugin.check_admission(&pin("exit/7"))).await;
        assert_eq!(error.kind(), ErrorKind::Crash);
        assert_eq!(error.to_string(), "the admission plugin terminated: exit status 7");
        let killed = host().plugin(peer("sigkill"));
        let error = error_of(&killed.check_admission(&pin("a"))).await;
        assert_eq!(error.to_string(), "the admission plugin terminated: signal: killed");
    }

    async fn an_exit_before_list_admissions_is_reported_with_its_status() {
        for (argument, words) in [
            ("exit-0", "terminated with 0 exit code"),
            ("exit-3", "exit status 3"),
            ("exit-while-connecting", "exit status 4"),
            ("sigkill-at-once", "signal: killed"),
        ] {
            let plugin = host().plugin(peer(argument));
            let error = error_of(&plugin.check_admission(&pin("a"))).await;
            assert_eq!(
                error.to_string(),
                format!("the admission plugin terminated before making ListAdmissions RPC: {words}")
            );
        }
    }

    async fn a_verdict_sent_just_before_an_exit_counts() {
        for _ in 0..20 {
            let plugin = host().plugin(peer("quick-exit"));
            let (first, second) = (pin("a"), pin("b"));
            let (first, second) = (plugin.check_admission(&first), plugin.check_admission(&second));
            first.wait().await.expect("admitted");
            let error = error_of(&second).await;
            assert_eq!(error.to_string(), "the admission plugin terminated: exit status 9");
        }
    }

    async fn a_plugin_that_never_connects_times_out_and_is_asked_to_finish() {
        let lines = Lines::collect();
        let options = PluginOptions::default().connect_timeout(Duration::from_millis(300));
        let plugin = host().plugin_with_options(peer("silent"), options);
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(error.kind(), ErrorKind::ConnectTimeout);
        assert_eq!(
            error.to_string(),
            "while waiting for ListAdmissions RPC: context deadline exceeded"
        );
        lines.wait_for("silent", "the peer was asked to finish").await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_plugin_that_does_not_finish_is_killed() {
        let plugin = host().plugin(peer("stubborn"));
        let promise = plugin.check_admission(&pin("a"));
        eventually(|| plugin.state() == PluginState::Running).await;
        assert_eq!(plugin.close(Duration::from_millis(50)).await, Exit::KilledByHost);
        assert_eq!(error_of(&promise).await.kind(), ErrorKind::Aborted);
    }

    async fn a_close_cancels_pending_metadata_calls() {
        let stuck = Stuck::default();
        let plugin = host_with(stuck.clone()).plugin(peer(""));
        let promise = plugin.check_admission(&pin("metadata/a"));
        eventually(|| stuck.under_way() == 1).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert_eq!(stuck.under_way(), 0);
        assert_eq!(error_of(&promise).await.kind(), ErrorKind::Aborted);
    }

    async fn a_line_sent_after_the_end_of_stdin_is_logged() {
        let lines = Lines::collect();
        let plugin = host().plugin(peer("log-after-stdin"));
        plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        lines.wait_for("log-after-stdin", "logged after the end of stdin").await;
    }

    async fn verdicts_after_a_close_are_ignored() {
        let plugin = host().plugin(peer("verdicts-after-stream"));
        let promise = plugin.check_admission(&pin("a"));
        eventually(|| plugin.state() == PluginState::Running).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert_eq!(error_of(&promise).await.kind(), ErrorKind::Aborted);
        assert_eq!(plugin.ignored_input().verdicts, 0);
    }

    async fn a_check_times_out_and_its_late_verdict_is_ignored_and_counted() {
        let options = PluginOptions::default().check_timeout(Duration::from_millis(100));
        let plugin = host().plugin_with_options(peer("late-verdicts"), options);
        let late = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(late.kind(), ErrorKind::Timeout);
        let next = error_of(&plugin.check_admission(&pin("b"))).await;
        assert_eq!(next.kind(), ErrorKind::Timeout);
        eventually(|| plugin.ignored_input().verdicts == 1).await;
        plugin.close(GRACE).await;
    }

    async fn a_check_does_not_time_out_while_the_plugin_sends_other_verdicts() {
        // Longer than the plugin may be delayed on a busy machine.
        let timeout = Duration::from_secs(2);
        let options = PluginOptions::default().check_timeout(timeout);
        let plugin = host().plugin_with_options(peer(""), options);
        let waiting = plugin.check_admission(&pin("hang/a"));
        let asked = Instant::now();
        for n in 0.. {
            if asked.elapsed() > timeout * 3 / 2 {
                break;
            }
            let judged = plugin.check_admission(&pin(&format!("allow/{n}"))).wait().await;
            judged.expect("admitted");
            assert!(!waiting.is_settled(), "the plugin has just sent a verdict");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(error_of(&waiting).await.kind(), ErrorKind::Timeout);
        plugin.close(GRACE).await;
    }

    async fn a_stopped_plugin_is_detected_whether_or_not_it_has_unread_checks() {
        // A few fit into the kernel's socket buffer; many do not.
        for checks in [10, 200_000] {
            let plugin = host().plugin(peer("stop"));
            let promises: Vec<_> = (0..checks)
                .map(|n| plugin.check_admission(&pin(&format!("a/{n}"))))
                .collect();
            for promise in &promises {
                let error = error_of(promise).await;
                assert_eq!(error.to_string(), "the admission plugin is terminating");
            }
            assert_eq!(plugin.close(Duration::ZERO).await, Exit::KilledByHost);
        }
    }
}
