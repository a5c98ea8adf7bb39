//! What a plugin is asked, how often, and how long an answer is remembered.

use std::time::Duration;

use admission_host::{CheckError, ErrorKind, Exit};
use conformance::repositories::Failing;
use conformance::{
    Code, GRACE, Mode, Plugin, PluginState, Promise, Status, error_of, eventually, host, host_with,
    in_every_mode, pin,
};
use futures_util::future::join_all;
use tokio::runtime::Handle;

/// Several batches, and more than one pipe's worth.
const MANY: usize = 1_000;

fn ask(plugin: &Plugin, generation: &str) -> Vec<Promise> {
    (0..MANY)
        .map(|n| plugin.check_admission(&pin(&format!("{generation}/{n}"))))
        .collect()
}

in_every_mode! {
    async fn checks_reach_the_plugin_once_each_in_the_order_they_were_asked(mode: Mode) {
        let plugin = host().plugin(mode.fixture("numbered"));
        // On a busy machine it may have connected before the last of them.
        let mut promises = ask(&plugin, "while-launching");
        eventually(|| plugin.state() == PluginState::Running).await;
        // Asked before, and so not sent again.
        ask(&plugin, "while-launching");
        promises.extend(ask(&plugin, "while-running"));
        for (place, promise) in promises.iter().enumerate() {
            assert_eq!(error_of(promise).await.to_string(), place.to_string());
        }
        plugin.close(GRACE).await;
    }

    async fn all_who_ask_for_a_pin_share_one_check(mode: Mode) {
        let plugin = host().plugin(mode.fixture("numbered"));
        let askers: Vec<_> = (0..50)
            .map(|_| {
                let plugin = plugin.clone();
                let asking = async move { plugin.check_admission(&pin("a")).wait().await };
                Handle::current().spawn(asking)
            })
            .collect();
        for asker in join_all(askers).await {
            let error = asker.expect("no panic").expect_err("denied");
            assert_eq!(error.to_string(), "0");
        }
        plugin.close(GRACE).await;
    }

    async fn clearing_forgets_what_is_settled_and_keeps_what_is_pending(mode: Mode) {
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

    async fn a_verdict_of_the_past_decides_no_newer_check(mode: Mode) {
        let plugin = host().plugin(mode.fixture("replay"));
        plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        plugin.clear_cache();
        // A denial with the old ID comes first.
        plugin.check_admission(&pin("a")).wait().await.expect("admitted again");
        assert_eq!(plugin.ignored_input().verdicts, 1);
        plugin.close(GRACE).await;
    }

    async fn an_error_is_remembered_like_a_verdict(mode: Mode) {
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

    async fn a_settled_promise_answers_whoever_has_no_time_left(mode: Mode) {
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

    async fn a_waiter_that_gives_up_changes_nothing_for_the_others(mode: Mode) {
        let plugin = host().plugin(mode.fixture("late"));
        let promise = plugin.check_admission(&pin("a"));
        for _ in 0..MANY {
            let answer = tokio::time::timeout(Duration::ZERO, promise.wait()).await;
            answer.expect_err("it is answered with the next one");
        }
        let patient = Handle::current().spawn(promise.wait());
        let _next = plugin.check_admission(&pin("b"));
        patient.await.expect("no panic").expect("admitted");
        plugin.close(GRACE).await;
    }
}
