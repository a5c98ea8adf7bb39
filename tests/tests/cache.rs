//! The promise cache: which checks reach the plugin, and how long an outcome is kept.

use std::time::Duration;

use admission_host::{CheckError, ErrorKind, Exit};
use conformance::repositories::Failing;
use conformance::{
    Code, GRACE, Mode, Plugin, PluginState, Promise, Status, error_of, eventually, host, host_with,
    in_every_mode, pin,
};
use futures_util::future::join_all;
use tokio::runtime::Handle;

/// Several batches, and more than one pipe holds.
const MANY: usize = 1_000;

fn check_many(plugin: &Plugin, generation: &str) -> Vec<Promise> {
    (0..MANY)
        .map(|n| plugin.check_admission(&pin(&format!("{generation}/{n}"))))
        .collect()
}

in_every_mode! {
    async fn each_check_reaches_the_plugin_once_and_in_order(mode: Mode) {
        let plugin = host().plugin(mode.fixture("numbered"));
        // On an overloaded machine the plugin may connect before the last of them.
        let mut promises = check_many(&plugin, "while-launching");
        eventually(|| plugin.state() == PluginState::Running).await;
        // These pins have promises, so nothing is sent.
        check_many(&plugin, "while-launching");
        promises.extend(check_many(&plugin, "while-running"));
        for (place, promise) in promises.iter().enumerate() {
            assert_eq!(error_of(promise).await.to_string(), place.to_string());
        }
        plugin.close(GRACE).await;
    }

    async fn concurrent_checks_of_a_pin_share_one_admission(mode: Mode) {
        let plugin = host().plugin(mode.fixture("numbered"));
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let plugin = plugin.clone();
                let checking = async move { plugin.check_admission(&pin("a")).wait().await };
                Handle::current().spawn(checking)
            })
            .collect();
        for caller in join_all(callers).await {
            let error = caller.expect("no panic").expect_err("denied");
            assert_eq!(error.to_string(), "0");
        }
        plugin.close(GRACE).await;
    }

    async fn clearing_drops_settled_promises_and_keeps_pending_ones(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let (settled, pending) = (pin("deny/a"), pin("hang/b"));
        let denial = plugin.check_admission(&settled);
        let waiting = plugin.check_admission(&pending);
        let error = error_of(&denial).await;
        plugin.clear_cache();
        assert!(plugin.check_admission(&pending).same_as(&waiting));
        assert!(!plugin.check_admission(&settled).same_as(&denial));
        assert_eq!(error_of(&denial).await.to_string(), error.to_string());
        plugin.close(GRACE).await;
    }

    async fn the_cache_can_be_cleared_in_every_state(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        plugin.clear_cache();
        assert_eq!(plugin.state(), PluginState::Idle);

        let promise = plugin.check_admission(&pin("hang"));
        plugin.clear_cache();
        assert!(plugin.check_admission(&pin("hang")).same_as(&promise));
        eventually(|| plugin.state() == PluginState::Running).await;
        plugin.clear_cache();
        assert!(plugin.check_admission(&pin("hang")).same_as(&promise));

        plugin.close(GRACE).await;
        plugin.clear_cache();
        assert_eq!(plugin.state(), PluginState::Closed);
        assert!(!plugin.check_admission(&pin("hang")).same_as(&promise));

        let broken = host().plugin(mode.missing());
        let promise = broken.check_admission(&pin("a"));
        error_of(&promise).await;
        broken.clear_cache();
        assert_eq!(broken.state(), PluginState::Broken);
        assert!(!broken.check_admission(&pin("a")).same_as(&promise));
    }

    async fn a_late_verdict_does_not_settle_a_newer_check_of_the_pin(mode: Mode) {
        let plugin = host().plugin(mode.fixture("repeated-denial"));
        plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        plugin.clear_cache();
        // The plugin sends a denial with the old ID first.
        plugin.check_admission(&pin("a")).wait().await.expect("admitted again");
        assert_eq!(plugin.ignored_input().verdicts, 1);
        plugin.close(GRACE).await;
    }

    async fn a_failed_check_is_cached_like_a_verdict(mode: Mode) {
        let failing = Failing(Status::new(Code::UNAVAILABLE, "the service is down"));
        let plugin = host_with(failing).plugin(mode.fixture(""));
        let pin = pin("metadata");
        let promise = plugin.check_admission(&pin);
        assert_eq!(error_of(&promise).await.kind(), ErrorKind::PolicyError);
        assert!(plugin.check_admission(&pin).same_as(&promise));
        plugin.clear_cache();
        let again = plugin.check_admission(&pin);
        assert!(!again.same_as(&promise));
        assert_eq!(error_of(&again).await.kind(), ErrorKind::PolicyError);
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_status_arrives_with_its_details(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let error = error_of(&plugin.check_admission(&pin("detail"))).await;
        let CheckError::Denied { status, .. } = error else {
            panic!("not a denial: {error}");
        };
        assert_eq!(status.message, "see the detail");
        let [detail] = &status.details[..] else {
            panic!("one detail was sent: {status:?}");
        };
        assert_eq!(detail.type_url, "type.example.com/detail");
        assert_eq!(detail.value, [0, 159, 255]);
        plugin.close(GRACE).await;
    }

    async fn waiting_for_a_settled_promise_succeeds_with_a_zero_timeout(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let promise = plugin.check_admission(&pin("allow/a"));
        promise.wait().await.expect("admitted");
        for _ in 0..MANY {
            let answer = tokio::time::timeout(Duration::ZERO, promise.wait()).await;
            answer.expect("it is settled").expect("admitted");
        }
        let pending = plugin.check_admission(&pin("hang"));
        let answer = tokio::time::timeout(Duration::ZERO, pending.wait()).await;
        answer.expect_err("it is not settled");
        plugin.close(GRACE).await;
    }

    async fn a_cancelled_wait_does_not_affect_other_waiters(mode: Mode) {
        let plugin = host().plugin(mode.fixture("late-verdicts"));
        let promise = plugin.check_admission(&pin("a"));
        for _ in 0..MANY {
            let answer = tokio::time::timeout(Duration::ZERO, promise.wait()).await;
            answer.expect_err("the plugin answers it with the next check");
        }
        let patient = Handle::current().spawn(promise.wait());
        let _next = plugin.check_admission(&pin("b"));
        patient.await.expect("no panic").expect("admitted");
        plugin.close(GRACE).await;
    }
}
