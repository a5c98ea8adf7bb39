//! Closes a plugin in every state.

use std::time::Duration;

use admission_host::{ErrorKind, Exit};
use conformance::logs::Lines;
use conformance::named::Named;
use conformance::repositories::Stuck;
use conformance::{
    GRACE, Host, HostOptions, Mode, Plugin, PluginState, Promise, error_of, eventually, host,
    host_with, in_every_mode, pin,
};
use futures_util::future::join_all;
use tokio::runtime::{Builder, Handle};

/// More than `max_in_flight` and than any pipe holds.
const MANY: usize = 10_000;

/// Longer than the host waits for a plugin, and than a test runs.
const VERY_LONG: Duration = Duration::from_secs(1_000_000);

/// A short grace, for plugins that do not exit by themselves.
const BRIEF: Duration = Duration::from_millis(50);

/// Modes in which the fixture hangs before it connects, and the line that it logs then.
const STUCK_LAUNCHING: [(&str, &str); 2] = [
    ("stubborn-silent", "the fixture has started"),
    ("stubborn-greeted", "the fixture has read hello"),
];

fn check_many(plugin: &Plugin, count: usize) -> Vec<Promise> {
    (0..count)
        .map(|n| plugin.check_admission(&pin(&format!("hang/{n}"))))
        .collect()
}

async fn running(host: &Host, mode: Mode, argument: &str) -> (Plugin, Promise) {
    let plugin = host.plugin(mode.fixture(argument));
    let promise = plugin.check_admission(&pin("hang"));
    eventually(|| plugin.state() == PluginState::Running).await;
    (plugin, promise)
}

async fn assert_aborted(promises: &[Promise]) {
    for promise in promises {
        assert!(
            promise.is_settled(),
            "it is pending until the plugin has exited"
        );
        assert_eq!(error_of(promise).await.kind(), ErrorKind::Aborted);
    }
}

/// Runs `action`, and panics unless it ends before a grace of [`GRACE`] that begins first.
/// The action must not compile a component.
async fn within_a_grace<T>(mode: Mode, action: impl AsyncFnOnce() -> T) -> T {
    let (stuck, _) = running(&host(), mode, "stubborn").await;
    stuck.start_close(GRACE);
    tokio::select! {
        biased;
        done = action() => done,
        exit = stuck.close(GRACE) => panic!("the grace was over first: {exit}"),
    }
}

in_every_mode! {
    async fn a_close_before_the_launch_starts_nothing(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        assert_eq!(plugin.close(VERY_LONG).await, Exit::NeverStarted);
        let promise = plugin.check_admission(&pin("allow/a"));
        assert_aborted(&[promise]).await;
        assert_eq!(plugin.close(Duration::ZERO).await, Exit::NeverStarted);
        assert_eq!(plugin.state(), PluginState::Closed);
    }

    async fn a_close_ends_a_plugin_that_is_being_spawned_or_compiled(mode: Mode) {
        // Without a component cache, so that compiling is slow.
        let host = Host::new(HostOptions::new(Handle::current()));
        for turns in [0, 2, 10] {
            let plugin = host.plugin(mode.fixture(""));
            let promise = plugin.check_admission(&pin("hang"));
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            plugin.start_close(VERY_LONG);
            assert_aborted(&[promise]).await;
            let exit = plugin.close(VERY_LONG).await;
            assert!(matches!(exit, Exit::NeverStarted | Exit::Success), "{exit}");
            assert_eq!(plugin.state(), PluginState::Closed);
        }
    }

    async fn a_plugin_stuck_in_its_launch_is_killed_after_the_callers_grace(mode: Mode) {
        let lines = Lines::collect();
        for (argument, moment) in STUCK_LAUNCHING {
            for (name, grace) in [("closed-at-once", Duration::ZERO), ("closed-soon", BRIEF)] {
                let name = format!("{name}-{argument}-{mode:?}");
                let fixture = Named::new(mode, &name, argument);
                let plugin = host().plugin(fixture.source.clone());
                let promises = check_many(&plugin, 3);
                lines.wait_for(&name, moment).await;
                assert_eq!(plugin.state(), PluginState::Launching);
                let exit = within_a_grace(mode, async || plugin.close(grace).await).await;
                assert_eq!(exit, Exit::KilledByHost);
                assert_aborted(&promises).await;
            }
        }
    }

    async fn a_plugin_closed_before_it_connects_can_exit_by_itself(mode: Mode) {
        let name = format!("closed-before-it-connects-{mode:?}");
        let fixture = Named::new(mode, &name, "silent");
        let plugin = host().plugin(fixture.source.clone());
        let promise = plugin.check_admission(&pin("a"));
        Lines::collect().wait_for(&name, "the fixture has read hello").await;
        plugin.start_close(GRACE);
        assert_aborted(&[promise]).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_close_ends_the_plugin_at_any_moment_of_its_launch(mode: Mode) {
        let host = host();
        // Compiles the component, so that the launches below only start it.
        running(&host, mode, "").await;
        for turns in 0..100 {
            let plugin = host.plugin(mode.fixture(""));
            let promise = plugin.check_admission(&pin("hang"));
            for _ in 0..turns * 20 {
                tokio::task::yield_now().await;
            }
            plugin.start_close(GRACE);
            assert_aborted(&[promise]).await;
            let exit = plugin.close(GRACE).await;
            assert!(matches!(exit, Exit::NeverStarted | Exit::Success), "{exit}");
        }
    }

    async fn a_stuck_running_plugin_is_killed_after_the_callers_grace(mode: Mode) {
        for grace in [Duration::ZERO, BRIEF] {
            let (plugin, promise) = running(&host(), mode, "stubborn").await;
            let exit = within_a_grace(mode, async || plugin.close(grace).await).await;
            assert_eq!(exit, Exit::KilledByHost);
            assert_aborted(&[promise]).await;
        }
    }

    async fn a_grace_is_at_most_five_seconds(mode: Mode) {
        let (plugin, _) = running(&host(), mode, "stubborn").await;
        assert_eq!(plugin.close(VERY_LONG).await, Exit::KilledByHost);
    }

    async fn a_close_wakes_waiters_before_the_grace_ends(mode: Mode) {
        let (plugin, promise) = running(&host(), mode, "stubborn").await;
        let waiters: Vec<_> = (0..10)
            .map(|_| Handle::current().spawn(promise.wait()))
            .collect();
        plugin.start_close(VERY_LONG);
        tokio::select! {
            biased;
            results = join_all(waiters) => for result in results {
                let error = result.expect("no panic").expect_err("the plugin has not answered");
                assert_eq!(error.kind(), ErrorKind::Aborted);
            },
            _ = plugin.close(VERY_LONG) => panic!("the waiters were not woken before the grace ended"),
        }
    }

    async fn closing_a_broken_plugin_returns_its_exit_and_keeps_its_error(mode: Mode) {
        let plugin = host().plugin(mode.fixture("exit-3"));
        let broken = error_of(&plugin.check_admission(&pin("a"))).await;
        for _ in 0..2 {
            let exit = plugin.close(GRACE).await;
            assert_eq!(exit.to_string(), mode.exit_words(3));
        }
        assert_eq!(plugin.state(), PluginState::Broken);
        let later = error_of(&plugin.check_admission(&pin("b"))).await;
        assert_eq!(later.to_string(), broken.to_string());
    }

    async fn a_broken_plugin_that_keeps_running_is_killed_after_the_grace(mode: Mode) {
        let host = host();
        let broken = async || {
            let plugin = host.plugin(mode.fixture("stubborn-broken"));
            let error = error_of(&plugin.check_admission(&pin("a"))).await;
            assert_eq!(error.kind(), ErrorKind::Version);
            plugin
        };
        // The first plugin only makes the host compile the component. The grace that a broken
        // plugin gets without a close must not end before the grace of the close either.
        broken().await.close(Duration::ZERO).await;
        let exit = within_a_grace(mode, async || broken().await.close(BRIEF).await).await;
        assert_eq!(exit, Exit::KilledByHost);
    }

    async fn a_second_close_changes_nothing(mode: Mode) {
        let (plugin, promise) = running(&host(), mode, "").await;
        for _ in 0..3 {
            assert_eq!(plugin.close(GRACE).await, Exit::Success);
        }
        assert_aborted(&[promise]).await;
    }

    async fn the_shortest_grace_counts(mode: Mode) {
        let (plugin, _) = running(&host(), mode, "stubborn").await;
        within_a_grace(mode, async || {
            plugin.start_close(VERY_LONG);
            assert_eq!(plugin.close(BRIEF).await, Exit::KilledByHost);
            assert_eq!(plugin.close(VERY_LONG).await, Exit::KilledByHost);
        })
        .await;
    }

    async fn concurrent_closes_wait_for_the_same_exit(mode: Mode) {
        let (plugin, promise) = running(&host(), mode, "stubborn").await;
        let closes: Vec<_> = (0..50)
            .map(|n| {
                let plugin = plugin.clone();
                let grace = Duration::from_millis(100 + n);
                Handle::current().spawn(async move { plugin.close(grace).await })
            })
            .collect();
        for exit in join_all(closes).await {
            // A close returns only after the plugin was killed.
            assert_eq!(exit.expect("no panic"), Exit::KilledByHost);
        }
        assert_aborted(&[promise]).await;
    }

    async fn a_close_that_nothing_awaits_is_graceful(mode: Mode) {
        let lines = Lines::collect();
        let name = format!("not-awaited-{mode:?}");
        let fixture = Named::new(mode, &name, "log-after-stdin");
        let plugin = host().plugin(fixture.source.clone());
        plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        plugin.start_close(GRACE);
        lines.wait_for(&name, "logged after the end of stdin").await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn output_during_a_close_changes_nothing(mode: Mode) {
        let (plugin, promise) = running(&host(), mode, "verdicts-after-stdin").await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert_eq!(plugin.state(), PluginState::Closed);
        assert_aborted(&[promise, plugin.check_admission(&pin("later"))]).await;
    }

    async fn a_close_aborts_ten_thousand_pending_checks(mode: Mode) {
        for (argument, grace, exit) in [
            ("never-answer", GRACE, Exit::Success),
            ("never-read", Duration::ZERO, Exit::KilledByHost),
        ] {
            let (plugin, _) = running(&host(), mode, argument).await;
            let pending = check_many(&plugin, MANY);
            plugin.start_close(grace);
            assert!(pending.iter().all(Promise::is_settled));
            assert_eq!(plugin.close(grace).await, exit);
            assert_aborted(&pending).await;
        }
    }

    async fn a_close_cancels_metadata_calls(mode: Mode) {
        let stuck = Stuck::default();
        let plugin = host_with(stuck.clone()).plugin(mode.fixture(""));
        let promise = plugin.check_admission(&pin("metadata/a"));
        eventually(|| stuck.under_way() == 1).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert_eq!(stuck.under_way(), 0);
        assert_aborted(&[promise]).await;
    }

    async fn closing_the_host_closes_every_plugin(mode: Mode) {
        let host = host();
        let idle = host.plugin(mode.fixture(""));
        let launching = host.plugin(mode.fixture("silent"));
        let waiting = launching.check_admission(&pin("a"));
        let (serving, pending) = running(&host, mode, "").await;
        host.start_close(GRACE);
        assert_aborted(&[waiting, pending]).await;
        host.close(GRACE).await;
        host.close(GRACE).await;
        for plugin in [idle, launching, serving] {
            assert_eq!(plugin.state(), PluginState::Closed);
            assert_aborted(&[plugin.check_admission(&pin("later"))]).await;
        }
    }

    async fn shutting_down_the_runtime_aborts_pending_checks(mode: Mode) {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let host = Host::new(HostOptions::new(runtime.handle().clone()));
        let (plugin, promise) = running(&host, mode, "never-answer").await;
        runtime.shutdown_background();
        assert_eq!(error_of(&promise).await.kind(), ErrorKind::Aborted);
        assert_eq!(plugin.close(GRACE).await, Exit::KilledByHost);
        assert_aborted(&[plugin.check_admission(&pin("later"))]).await;
    }
}
