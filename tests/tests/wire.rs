//! What a plugin may send, and what breaks it.

use std::time::Duration;

use admission_host::{ErrorKind, Exit};
use conformance::repositories::{Counted, Stuck};
use conformance::{
    GRACE, Mode, Plugin, PluginOptions, PluginState, Promise, error_of, eventually, host,
    host_with, in_every_mode, in_every_stdio_mode, pin,
};
use futures_util::future::join_all;

fn pins(count: usize) -> Vec<admission_host::Pin> {
    (0..count).map(|n| pin(&format!("allow/{n}"))).collect()
}

fn check_many(plugin: &Plugin, count: usize) -> Vec<Promise> {
    pins(count)
        .iter()
        .map(|pin| plugin.check_admission(pin))
        .collect()
}

async fn all_admitted(promises: &[Promise]) -> bool {
    join_all(promises.iter().map(Promise::wait))
        .await
        .iter()
        .all(Result::is_ok)
}

in_every_mode! {
    async fn a_second_verdict_is_ignored_and_counted(mode: Mode) {
        let plugin = host().plugin(mode.fixture("two-verdicts"));
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(error.to_string(), "denied first");
        eventually(|| plugin.ignored_input().verdicts == 1).await;
        assert_eq!(plugin.state(), PluginState::Running);
        plugin.close(GRACE).await;
    }

    async fn a_verdict_on_an_unknown_check_is_ignored_and_counted(mode: Mode) {
        let plugin = host().plugin(mode.fixture("unknown-verdict"));
        plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        assert_eq!(plugin.ignored_input().verdicts, 1);
        plugin.close(GRACE).await;
    }

    async fn verdicts_may_arrive_in_any_order(mode: Mode) {
        let plugin = host().plugin(mode.fixture("backwards"));
        assert!(all_admitted(&check_many(&plugin, 1000)).await);
        plugin.close(GRACE).await;
    }

    async fn a_check_that_times_out_is_not_in_flight_and_its_verdict_is_ignored(mode: Mode) {
        let options = PluginOptions::default()
            .check_timeout(Duration::from_millis(100))
            .max_in_flight(1);
        let plugin = host().plugin_with_options(mode.fixture("late-verdicts"), options);
        let (first, second) = (pin("a"), pin("b"));
        let late = error_of(&plugin.check_admission(&first)).await;
        assert_eq!(late.kind(), ErrorKind::Timeout);
        assert_eq!(late.to_string(), "the admission plugin did not answer within 0.1s");
        // On the second admission the fixture admits the first.
        let next = error_of(&plugin.check_admission(&second)).await;
        assert_eq!(next.kind(), ErrorKind::Timeout);
        eventually(|| plugin.ignored_input().verdicts == 1).await;
        assert_eq!(error_of(&plugin.check_admission(&first)).await.kind(), ErrorKind::Timeout);
        plugin.close(GRACE).await;
    }

    async fn unwritten_checks_time_out_too(mode: Mode) {
        let options = PluginOptions::default().check_timeout(Duration::from_millis(200));
        let plugin = host().plugin_with_options(mode.fixture("never-read"), options);
        for promise in check_many(&plugin, 20_000) {
            assert_eq!(error_of(&promise).await.kind(), ErrorKind::Timeout);
        }
        assert_eq!(plugin.close(Duration::ZERO).await, Exit::KilledByHost);
    }

    async fn many_checks_and_metadata_calls_do_not_deadlock(mode: Mode) {
        let stocked = pins(1_000);
        let mut repository = admission_host::MemoryRepository::new();
        for pin in &stocked {
            let value = vec![b'x'; 1_000];
            repository.insert(pin, vec![admission_host::InstanceMetadata::new("k", value)]);
        }
        let plugin = host_with(repository).plugin(mode.fixture("flood"));
        let promises: Vec<_> = stocked.iter().map(|pin| plugin.check_admission(pin)).collect();
        for promise in promises {
            promise.wait().await.expect("admitted");
        }
        plugin.close(GRACE).await;
    }

    async fn at_most_eight_metadata_calls_of_a_plugin_run_at_a_time(mode: Mode) {
        let stuck = Stuck::default();
        let plugin = host_with(stuck.clone()).plugin(mode.fixture("fifty-calls"));
        let waiting = plugin.check_admission(&pin("a"));
        eventually(|| stuck.under_way() >= 8).await;
        // On the stdio wire, all its calls arrive before this verdict, and no call has ended.
        plugin.check_admission(&pin("b")).wait().await.expect("admitted");
        assert_eq!(stuck.under_way(), 8);
        assert!(!waiting.is_settled());
        plugin.close(GRACE).await;
        assert_eq!(stuck.under_way(), 0);
    }

    async fn a_waiting_handler_does_not_delay_others(mode: Mode) {
        let stuck = Stuck::default();
        let plugin = host_with(stuck.clone()).plugin(mode.fixture(""));
        let waiting = plugin.check_admission(&pin("metadata/a"));
        eventually(|| stuck.under_way() == 1).await;
        assert!(all_admitted(&check_many(&plugin, 100)).await);
        assert!(!waiting.is_settled());
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }
}

in_every_stdio_mode! {
    async fn text_on_stdout_is_quoted_in_the_error(mode: Mode) {
        let plugin = host().plugin(mode.fixture("text-on-stdout"));
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        // "s" reads as a length of 115, more than the line has.
        assert_eq!(error.kind(), ErrorKind::Stall);
        let text = error.to_string();
        assert!(text.contains("starting up, please wait"), "{text}");
        assert!(text.ends_with("stdout is the wire: log to stderr"), "{text}");
        plugin.close(GRACE).await;
    }

    async fn an_exit_inside_a_frame_quotes_the_frame(mode: Mode) {
        let plugin = host().plugin(mode.fixture("exit-inside-frame"));
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(
            error.to_string(),
            format!(
                r#"the admission plugin terminated: {} (its output ended inside a frame: "\n\x12\x08\n")"#,
                mode.exit_words(5)
            )
        );
        plugin.close(GRACE).await;
    }

    async fn an_incomplete_frame_breaks_the_plugin_after_its_timeout(mode: Mode) {
        let plugin = host().plugin(mode.fixture("half-frame"));
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(error.kind(), ErrorKind::Stall);
        assert_eq!(
            error.to_string(),
            r#"the admission plugin stopped in the middle of a frame, after 4 bytes: "\n\x12\x08\n""#
        );
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_verdict_without_a_status_is_a_protocol_error(mode: Mode) {
        let plugin = host().plugin(mode.fixture("no-status"));
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().ends_with("without a status"), "{error}");
        plugin.close(GRACE).await;
    }

    async fn unknown_frames_are_ignored_and_counted(mode: Mode) {
        let plugin = host().plugin(mode.fixture("unknown-frame"));
        plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        assert_eq!(plugin.ignored_input().unknown_frames, 1);
        plugin.close(GRACE).await;
    }

    async fn a_plugin_that_calls_and_never_reads_is_broken(mode: Mode) {
        let pin = pin("allow/a");
        let repository = Counted::with_entries(&pin, 1);
        let plugin = host_with(repository).plugin(mode.fixture("call-without-reading"));
        let error = error_of(&plugin.check_admission(&pin)).await;
        assert_eq!(error.kind(), ErrorKind::Resource);
        plugin.close(Duration::ZERO).await;
    }

    async fn a_metadata_call_is_cancelled_with_its_check(mode: Mode) {
        let stuck = Stuck::default();
        // Long enough to observe the call before it ends.
        let options = PluginOptions::default().check_timeout(Duration::from_secs(2));
        let plugin = host_with(stuck.clone()).plugin_with_options(mode.fixture(""), options);
        let promise = plugin.check_admission(&pin("metadata/a"));
        eventually(|| stuck.under_way() == 1).await;
        assert_eq!(error_of(&promise).await.kind(), ErrorKind::Timeout);
        eventually(|| stuck.under_way() == 0).await;
        plugin.close(GRACE).await;
    }
}
