//! The scenarios of the reference's tests, in every mode.

use std::time::{Duration, SystemTime};

use admission_host::{CheckError, ErrorKind, Exit, InstanceMetadata};
use conformance::repositories::{Counted, Failing, Recorded};
use conformance::{
    Code, GRACE, Mode, Plugin, PluginOptions, PluginState, Promise, Status, error_of, eventually,
    host, host_with, in_every_mode, pin,
};
use futures_util::future::join_all;

/// Several batches, and more than one pipe holds.
const MANY: usize = 1_000;

fn check_many(plugin: &Plugin, package: &str) -> Vec<Promise> {
    (0..MANY)
        .map(|n| plugin.check_admission(&pin(&format!("{package}/{n}"))))
        .collect()
}

in_every_mode! {
    async fn a_verdict_is_cached_until_a_clear(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let (good, bad) = (pin("allow/good"), pin("deny/bad"));

        let promise = plugin.check_admission(&good);
        assert!(plugin.check_admission(&good).same_as(&promise));
        promise.wait().await.expect("admitted");
        assert!(plugin.check_admission(&good).same_as(&promise));

        let denial = plugin.check_admission(&bad);
        let error = error_of(&denial).await;
        assert_eq!(error.to_string(), "deny/bad is denied");
        assert_eq!((error.kind(), error.code()), (ErrorKind::Denied, Some(Code::FAILED_PRECONDITION)));
        assert_eq!(error.plugin(), mode.fixture_name());
        assert!(plugin.check_admission(&bad).same_as(&denial));

        plugin.clear_cache();
        let again = plugin.check_admission(&good);
        assert!(!again.same_as(&promise));
        again.wait().await.expect("admitted again");

        let results = join_all(check_many(&plugin, "allow").iter().map(Promise::wait)).await;
        assert!(results.iter().all(Result::is_ok));

        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert_eq!(plugin.state(), PluginState::Closed);
        let aborted = error_of(&plugin.check_admission(&pin("allow/late"))).await;
        assert_eq!(aborted.to_string(), "the admission plugin is terminating");
        assert_eq!(aborted.kind(), ErrorKind::Aborted);
        plugin.check_admission(&good).wait().await.expect("cached after the close");
        plugin.clear_cache();
        assert_eq!(error_of(&plugin.check_admission(&good)).await.kind(), ErrorKind::Aborted);
    }

    async fn other_statuses_of_the_policy_are_returned_unchanged(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        for code in [2, 10, 12_345] {
            let error = error_of(&plugin.check_admission(&pin(&format!("code/{code}")))).await;
            assert_eq!(error.kind(), ErrorKind::PolicyError);
            assert_eq!(error.code(), Some(Code::from(code)));
            assert_eq!(error.to_string(), "as asked");
        }
        let confused = error_of(&plugin.check_admission(&pin("code/0"))).await;
        assert_eq!(confused.code(), Some(Code::INTERNAL));
        assert_eq!(confused.to_string(), "the handler returned an error with code OK");
        plugin.close(GRACE).await;
    }

    async fn metadata_is_visited_over_all_pages(mode: Mode) {
        let pin = pin("visit-all/7");
        let repository = Counted::with_entries(&pin, 15);
        let plugin = host_with(repository.clone()).plugin(mode.fixture(""));
        let visited = error_of(&plugin.check_admission(&pin)).await.to_string();
        let all: Vec<_> = (0..15).map(|n| format!("k{n:02}")).collect();
        assert_eq!(visited, all.join(" "));
        assert_eq!(repository.calls(), 1);
        plugin.close(GRACE).await;
    }

    async fn a_visitor_that_stops_fetches_no_further_page(mode: Mode) {
        let pin = pin("visit-first");
        let repository = Counted::with_entries(&pin, 25);
        let plugin = host_with(repository.clone()).plugin(mode.fixture(""));
        assert_eq!(error_of(&plugin.check_admission(&pin)).await.to_string(), "k00");
        assert_eq!(repository.calls(), 1);
        plugin.close(GRACE).await;
    }

    async fn a_repository_error_reaches_the_check_unchanged(mode: Mode) {
        let failing = Failing(Status::new(Code::UNAVAILABLE, "the service is down"));
        let plugin = host_with(failing).plugin(mode.fixture(""));
        let error = error_of(&plugin.check_admission(&pin("metadata"))).await;
        assert_eq!(error.code(), Some(Code::UNAVAILABLE));
        assert_eq!(error.to_string(), "the service is down");
        assert_eq!(error.kind(), ErrorKind::PolicyError);
        plugin.close(GRACE).await;
    }

    async fn metadata_is_unimplemented_without_a_repository(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let error = error_of(&plugin.check_admission(&pin("metadata"))).await;
        assert_eq!(error.code(), Some(Code::UNIMPLEMENTED));
        assert_eq!(error.to_string(), "a RepositoryClient implementation is not provided");
        plugin.close(GRACE).await;
    }

    async fn metadata_of_another_service_is_refused(mode: Mode) {
        let pin = pin("a");
        let plugin = host_with(Counted::with_entries(&pin, 1)).plugin(mode.fixture("foreign-service"),
        );
        let error = error_of(&plugin.check_admission(&pin)).await;
        assert_eq!(error.code(), Some(Code::PERMISSION_DENIED));
        assert_eq!(
            error.to_string(),
            r#"can query only the CIPD repository the client is using ("https://chrome-infra-packages.appspot.com")"#
        );
        plugin.close(GRACE).await;
    }

    async fn metadata_of_an_invalid_instance_is_refused(mode: Mode) {
        let pin = pin("a");
        let plugin = host_with(Counted::with_entries(&pin, 1)).plugin(mode.fixture("no-instance"),
        );
        let error = error_of(&plugin.check_admission(&pin)).await;
        assert_eq!(error.code(), Some(Code::INVALID_ARGUMENT));
        assert_eq!(error.to_string(), "bad 'instance': the object ref is not provided");
        plugin.close(GRACE).await;
    }

    async fn every_field_of_an_entry_reaches_the_policy(mode: Mode) {
        let mut entry = InstanceMetadata::new("key", "value");
        entry.content_type = "text/plain".into();
        entry.fingerprint = "not checked".into();
        entry.attached_by = "user:somebody@example.com".into();
        entry.attached_ts = Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5_000));
        let repository = Recorded::answering(vec![entry]);
        let plugin = host_with(repository).plugin(mode.fixture(""));
        assert_eq!(
            error_of(&plugin.check_admission(&pin("provenance"))).await.to_string(),
            "key=value text/plain not checked user:somebody@example.com Some(1700000000.000005s)"
        );
        plugin.close(GRACE).await;
    }

    async fn a_panic_in_the_handler_fails_its_check(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let error = error_of(&plugin.check_admission(&pin("panic"))).await;
        assert_eq!(error.kind(), ErrorKind::PolicyError);
        assert_eq!(error.code(), Some(Code::ABORTED));
        assert_eq!(error.to_string(), "panic in the admission handler: the fixture panics");
        plugin.close(GRACE).await;
    }

    async fn a_plugin_can_be_closed_right_after_its_start(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let promise = plugin.check_admission(&pin("allow/a"));
        plugin.start_close(GRACE);
        assert!(promise.is_settled());
        assert_eq!(error_of(&promise).await.kind(), ErrorKind::Aborted);
        plugin.close(GRACE).await;
    }

    async fn a_plugin_without_checks_is_never_started(mode: Mode) {
        let plugin = host().plugin(mode.missing());
        assert_eq!(plugin.state(), PluginState::Idle);
        assert_eq!(plugin.close(GRACE).await, Exit::NeverStarted);
        let aborted = error_of(&plugin.check_admission(&pin("allow/a"))).await;
        assert_eq!(aborted.kind(), ErrorKind::Aborted);
    }

    async fn a_plugin_that_never_connects_times_out(mode: Mode) {
        let options = PluginOptions::default().connect_timeout(Duration::from_millis(100));
        let plugin = host().plugin_with_options(mode.fixture("silent"), options);
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(
            error.to_string(),
            "while waiting for ListAdmissions RPC: context deadline exceeded"
        );
        assert_eq!(error.kind(), ErrorKind::ConnectTimeout);
        assert_eq!(plugin.state(), PluginState::Broken);
        plugin.close(GRACE).await;
    }

    async fn a_plugin_can_be_closed_before_it_connects(mode: Mode) {
        let plugin = host().plugin(mode.fixture("silent"));
        let promise = plugin.check_admission(&pin("a"));
        assert_eq!(plugin.state(), PluginState::Launching);
        plugin.close(GRACE).await;
        let error = error_of(&promise).await;
        assert_eq!(error.to_string(), "the admission plugin is terminating");
    }

    async fn another_protocol_version_is_a_failure_and_not_a_denial(mode: Mode) {
        let plugin = host().plugin(mode.fixture("version-99"));
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(error.to_string(), "unknown protocol version 99: expecting 1");
        assert_eq!((error.kind(), error.code()), (ErrorKind::Version, None));
        let later = error_of(&plugin.check_admission(&pin("b"))).await;
        assert_eq!(later.to_string(), error.to_string());
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn an_exit_while_connecting_is_reported_with_its_status(mode: Mode) {
        let plugin = host().plugin(mode.fixture("exit-while-connecting"));
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        let words = mode.exit_words(4);
        assert_eq!(
            error.to_string(),
            format!("the admission plugin terminated before making ListAdmissions RPC: {words}")
        );
        assert_eq!(error.kind(), ErrorKind::Crash);
        assert_eq!(error.exit().map(Exit::to_string), Some(words));
        plugin.close(GRACE).await;
    }

    async fn an_immediate_exit_always_gives_the_same_error(mode: Mode) {
        let host = host();
        let words = mode.exit_words(3);
        for _ in 0..50 {
            let plugin = host.plugin(mode.fixture("exit-3"));
            let error = error_of(&plugin.check_admission(&pin("a"))).await;
            assert_eq!(
                error.to_string(),
                format!("the admission plugin terminated before making ListAdmissions RPC: {words}")
            );
            assert_eq!(error.exit().map(Exit::to_string).as_ref(), Some(&words));
            assert_eq!(error.stderr_tail(), "no configuration");
            plugin.close(GRACE).await;
        }
    }

    async fn exit_status_0_before_connecting_is_an_error(mode: Mode) {
        let plugin = host().plugin(mode.fixture("exit-0"));
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(
            error.to_string(),
            "the admission plugin terminated before making ListAdmissions RPC: terminated with 0 exit code"
        );
        plugin.close(GRACE).await;
    }

    async fn a_crash_on_the_second_check_keeps_the_first_verdict(mode: Mode) {
        let plugin = host().plugin(mode.fixture("crash-on-second"));
        let first = pin("a");
        plugin.check_admission(&first).wait().await.expect("admitted");
        let error = error_of(&plugin.check_admission(&pin("b"))).await;
        let words = mode.exit_words(7);
        assert_eq!(error.to_string(), format!("the admission plugin terminated: {words}"));
        assert_eq!(error.kind(), ErrorKind::Crash);
        assert_eq!(plugin.state(), PluginState::Broken);
        plugin.check_admission(&first).wait().await.expect("cached");
        let later = error_of(&plugin.check_admission(&pin("c"))).await;
        assert_eq!(later.to_string(), error.to_string());
        assert!(matches!(plugin.close(GRACE).await, Exit::Failed { .. }));
    }

    async fn a_close_aborts_pending_checks(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        plugin.check_admission(&pin("allow/a")).wait().await.expect("admitted");
        let pending = check_many(&plugin, "hang");
        plugin.start_close(GRACE);
        assert!(pending.iter().all(Promise::is_settled));
        for promise in &pending {
            assert_eq!(error_of(promise).await.kind(), ErrorKind::Aborted);
        }
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_stuck_plugin_is_killed_after_the_grace(mode: Mode) {
        for argument in ["stubborn", "stubborn-silent"] {
            let plugin = host().plugin(mode.fixture(argument));
            let promise = plugin.check_admission(&pin("a"));
            if argument == "stubborn" {
                eventually(|| plugin.state() == PluginState::Running).await;
            }
            let exit = plugin.close(Duration::from_millis(50)).await;
            assert!(matches!(exit, Exit::KilledByHost | Exit::NeverStarted), "{exit}");
            assert_eq!(error_of(&promise).await.kind(), ErrorKind::Aborted);
        }
    }

    async fn five_plugins_of_one_host_run_independently(mode: Mode) {
        let host = host();
        let plugins: Vec<_> = (0..5).map(|_| host.plugin(mode.fixture(""))).collect();
        let promises: Vec<_> = plugins.iter().flat_map(|plugin| check_many(plugin, "allow")).collect();
        let results = join_all(promises.iter().map(Promise::wait)).await;
        assert!(results.iter().all(Result::is_ok));
        host.close(GRACE).await;
        assert!(plugins.iter().all(|plugin| plugin.state() == PluginState::Closed));
    }

    async fn the_error_of_a_failed_start_has_its_cause(mode: Mode) {
        let plugin = host().plugin(mode.missing());
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        let text = match mode {
            Mode::Native | Mode::Guarded | Mode::Grpc => "failed to launch the plugin: fork/exec /does/not/exist: no such file or directory",
            Mode::Component => "failed to launch the plugin: cannot read the component `/does/not/exist`",
        };
        assert_eq!(error.to_string(), text);
        assert_eq!(error.kind(), ErrorKind::Launch);
        assert!(std::error::Error::source(&error).is_some());
        assert_eq!(plugin.close(GRACE).await, Exit::NeverStarted);
    }

    async fn a_plugin_of_a_closed_host_is_not_started(mode: Mode) {
        let host = host();
        host.close(GRACE).await;
        let plugin = host.plugin(mode.fixture(""));
        let error = error_of(&plugin.check_admission(&pin("allow/a"))).await;
        assert_eq!(
            error.to_string(),
            "failed to launch the plugins grpc server: the plugins host is already closed"
        );
        plugin.close(GRACE).await;
    }

    async fn dropping_the_last_handle_ends_the_plugin(mode: Mode) {
        let plugin = host().plugin(mode.fixture("stubborn"));
        let promise = plugin.check_admission(&pin("a"));
        let other = plugin.clone();
        drop(plugin);
        assert!(!promise.is_settled());
        drop(other);
        assert!(matches!(error_of(&promise).await, CheckError::Aborted { .. }));
    }
}
