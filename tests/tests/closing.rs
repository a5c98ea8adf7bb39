//! Close, under all circumstances.

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

/// More than any window and any pipe takes.
const MANY: usize = 100_000;

/// Longer than the host waits for any plugin, and than any test runs.
const FOR_EVER: Duration = Duration::from_secs(1_000_000);

/// How long a plugin is given that uses all of it up.
const BRIEF: Duration = Duration::from_millis(50);

/// Where a plugin can be stuck before it connects, and what it says when it is there.
const STUCK_LAUNCHING: [(&str, &str); 2] = [
    ("stubborn-silent", "the fixture has started"),
    ("stubborn-greeted", "the fixture has read hello"),
];

fn ask(plugin: &Plugin, count: usize) -> Vec<Promise> {
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
        assert!(promise.is_settled(), "it waits for the end of the plugin");
        assert_eq!(error_of(promise).await.kind(), ErrorKind::Aborted);
    }
}

/// Runs `what`, and panics unless it ends before a grace of [`GRACE`] that begins first.
/// It must not compile anything.
async fn sooner_than_a_grace<T>(mode: Mode, what: impl AsyncFnOnce() -> T) -> T {
    let (stuck, _) = running(&host(), mode, "stubborn").await;
    stuck.start_close(GRACE);
    tokio::select! {
        biased;
        done = what() => done,
        exit = stuck.close(GRACE) => panic!("the grace was over first: {exit}"),
    }
}

in_every_mode! {
    async fn before_launch_nothing_is_started(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        assert_eq!(plugin.close(FOR_EVER).await, Exit::NeverStarted);
        let promise = plugin.check_admission(&pin("allow/a"));
        assert_aborted(&[promise]).await;
        assert_eq!(plugin.close(Duration::ZERO).await, Exit::NeverStarted);
        assert_eq!(plugin.state(), PluginState::Closed);
    }

    async fn while_it_is_spawned_or_compiled_it_ends(mode: Mode) {
        // Without a cache, so that compiling takes its time.
        let host = Host::new(HostOptions::new(Handle::current()));
        for turns in [0, 1, 2, 5, 10] {
            let plugin = host.plugin(mode.fixture(""));
            let promise = plugin.check_admission(&pin("hang"));
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            plugin.start_close(FOR_EVER);
            assert_aborted(&[promise]).await;
            let exit = plugin.close(FOR_EVER).await;
            assert!(matches!(exit, Exit::NeverStarted | Exit::Success), "{exit}");
            assert_eq!(plugin.state(), PluginState::Closed);
        }
    }

    async fn while_it_launches_the_deadline_of_the_caller_holds(mode: Mode) {
        let lines = Lines::collect();
        for (argument, moment) in STUCK_LAUNCHING {
            for (name, grace) in [("closed-at-once", Duration::ZERO), ("closed-soon", BRIEF)] {
                let name = format!("{name}-{argument}-{mode:?}");
                let fixture = Named::new(mode, &name, argument);
                let plugin = host().plugin(fixture.source.clone());
                let promises = ask(&plugin, 3);
                lines.wait_for(&name, moment).await;
                assert_eq!(plugin.state(), PluginState::Launching);
                let exit = sooner_than_a_grace(mode, async || plugin.close(grace).await).await;
                assert_eq!(exit, Exit::KilledByHost);
                assert_aborted(&promises).await;
            }
        }
    }

    async fn before_it_connects_it_may_end_by_itself(mode: Mode) {
        let name = format!("closed-before-it-connects-{mode:?}");
        let fixture = Named::new(mode, &name, "silent");
        let plugin = host().plugin(fixture.source.clone());
        let promise = plugin.check_admission(&pin("a"));
        Lines::collect().wait_for(&name, "the fixture has read hello").await;
        plugin.start_close(GRACE);
        assert_aborted(&[promise]).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn at_any_moment_of_the_launch_it_ends(mode: Mode) {
        let host = host();
        // By then the component is compiled, and each moment below is one of its start.
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

    async fn while_it_runs_the_deadline_of_the_caller_holds(mode: Mode) {
        for grace in [Duration::ZERO, BRIEF] {
            let (plugin, promise) = running(&host(), mode, "stubborn").await;
            let exit = sooner_than_a_grace(mode, async || plugin.close(grace).await).await;
            assert_eq!(exit, Exit::KilledByHost);
            assert_aborted(&[promise]).await;
        }
    }

    async fn a_deadline_of_more_than_five_seconds_is_five_seconds(mode: Mode) {
        let (plugin, _) = running(&host(), mode, "stubborn").await;
        assert_eq!(plugin.close(FOR_EVER).await, Exit::KilledByHost);
    }

    async fn waiters_wake_before_the_grace_is_over(mode: Mode) {
        let (plugin, promise) = running(&host(), mode, "stubborn").await;
        let waiters: Vec<_> = (0..10)
            .map(|_| Handle::current().spawn(promise.wait()))
            .collect();
        plugin.start_close(FOR_EVER);
        tokio::select! {
            biased;
            results = join_all(waiters) => for result in results {
                let error = result.expect("no panic").expect_err("nobody has answered");
                assert_eq!(error.kind(), ErrorKind::Aborted);
            },
            _ = plugin.close(FOR_EVER) => panic!("the waiters slept through the grace"),
        }
    }

    async fn a_broken_plugin_keeps_its_error_and_tells_its_exit(mode: Mode) {
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

    async fn a_broken_plugin_that_lives_on_is_killed_at_the_deadline(mode: Mode) {
        let host = host();
        let broken = async || {
            let plugin = host.plugin(mode.fixture("stubborn-broken"));
            let error = error_of(&plugin.check_admission(&pin("a"))).await;
            assert_eq!(error.kind(), ErrorKind::Version);
            plugin
        };
        // From here it is compiled. That it is broken begins a grace of its own, which
        // must not be over first either.
        broken().await.close(Duration::ZERO).await;
        let exit = sooner_than_a_grace(mode, async || broken().await.close(BRIEF).await).await;
        assert_eq!(exit, Exit::KilledByHost);
    }

    async fn twice_is_as_good_as_once(mode: Mode) {
        let (plugin, promise) = running(&host(), mode, "").await;
        for _ in 0..3 {
            assert_eq!(plugin.close(GRACE).await, Exit::Success);
        }
        assert_aborted(&[promise]).await;
    }

    async fn the_shortest_of_several_deadlines_counts(mode: Mode) {
        let (plugin, _) = running(&host(), mode, "stubborn").await;
        sooner_than_a_grace(mode, async || {
            plugin.start_close(FOR_EVER);
            assert_eq!(plugin.close(BRIEF).await, Exit::KilledByHost);
            assert_eq!(plugin.close(FOR_EVER).await, Exit::KilledByHost);
        })
        .await;
    }

    async fn all_who_close_wait_for_the_same_end(mode: Mode) {
        let (plugin, promise) = running(&host(), mode, "stubborn").await;
        let closers: Vec<_> = (0..50)
            .map(|n| {
                let plugin = plugin.clone();
                let grace = Duration::from_millis(100 + n);
                Handle::current().spawn(async move { plugin.close(grace).await })
            })
            .collect();
        for exit in join_all(closers).await {
            // None of them could say so before the plugin was killed.
            assert_eq!(exit.expect("no panic"), Exit::KilledByHost);
        }
        assert_aborted(&[promise]).await;
    }

    async fn it_goes_on_when_nobody_waits_for_it(mode: Mode) {
        let lines = Lines::collect();
        let name = format!("nobody-waits-{mode:?}");
        let fixture = Named::new(mode, &name, "farewell");
        let plugin = host().plugin(fixture.source.clone());
        plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        plugin.start_close(GRACE);
        lines.wait_for(&name, "said after the end of stdin").await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn what_the_plugin_says_meanwhile_changes_nothing(mode: Mode) {
        let (plugin, promise) = running(&host(), mode, "rude").await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert_eq!(plugin.state(), PluginState::Closed);
        assert_aborted(&[promise, plugin.check_admission(&pin("later"))]).await;
    }

    async fn with_a_hundred_thousand_pending_all_are_aborted(mode: Mode) {
        for (argument, grace, exit) in [
            ("mute", GRACE, Exit::Success),
            ("deaf", Duration::ZERO, Exit::KilledByHost),
        ] {
            let (plugin, _) = running(&host(), mode, argument).await;
            let pending = ask(&plugin, MANY);
            plugin.start_close(grace);
            assert!(pending.iter().all(Promise::is_settled));
            assert_eq!(plugin.close(grace).await, exit);
            assert_aborted(&pending).await;
        }
    }

    async fn during_a_metadata_call_the_call_ends_too(mode: Mode) {
        let stuck = Stuck::default();
        let plugin = host_with(stuck.clone()).plugin(mode.fixture(""));
        let promise = plugin.check_admission(&pin("metadata/a"));
        eventually(|| stuck.under_way() == 1).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert_eq!(stuck.under_way(), 0);
        assert_aborted(&[promise]).await;
    }

    async fn of_the_host_it_is_the_close_of_every_plugin(mode: Mode) {
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

    async fn when_the_runtime_ends_nobody_is_left_waiting(mode: Mode) {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let host = Host::new(HostOptions::new(runtime.handle().clone()));
        let (plugin, promise) = running(&host, mode, "mute").await;
        runtime.shutdown_background();
        assert_eq!(error_of(&promise).await.kind(), ErrorKind::Aborted);
        assert_eq!(plugin.close(GRACE).await, Exit::KilledByHost);
        assert_aborted(&[plugin.check_admission(&pin("later"))]).await;
    }
}
