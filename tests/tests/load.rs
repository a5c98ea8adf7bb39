//! Many checks at once, and plugins that exit or are closed meanwhile.

use std::time::Duration;

use admission_host::{ErrorKind, Exit};
use conformance::{GRACE, Mode, Plugin, PluginState, Promise, guarded, host, in_every_mode, pin};
use futures_util::future::join_all;

fn check_many(plugin: &Plugin, count: usize) -> Vec<Promise> {
    (0..count)
        .map(|n| plugin.check_admission(&pin(&format!("allow/{n}"))))
        .collect()
}

in_every_mode! {
    async fn ten_thousand_checks_all_get_a_verdict(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let results = join_all(check_many(&plugin, 10_000).iter().map(Promise::wait)).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 10_000);
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn verdicts_before_a_crash_count_and_the_other_checks_fail_with_the_exit(mode: Mode) {
        let plugin = host().plugin(mode.fixture("die-at-500"));
        let results = join_all(check_many(&plugin, 1000).iter().map(Promise::wait)).await;
        let (verdicts, failures): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!((verdicts.len(), failures.len()), (500, 500));
        let (words, kind) = match mode {
            Mode::Native | Mode::Guarded | Mode::Grpc => ("signal: killed", ErrorKind::Crash),
            Mode::Component => ("trap: wasm `unreachable` instruction executed", ErrorKind::Trap),
        };
        for failure in failures {
            let error = failure.expect_err("a failure");
            assert_eq!(error.to_string(), format!("the admission plugin terminated: {words}"));
            assert_eq!(error.kind(), kind);
        }
        assert_eq!(plugin.state(), PluginState::Broken);
        plugin.close(GRACE).await;
    }

    async fn a_close_during_a_burst_of_checks_settles_every_promise(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let runtime = tokio::runtime::Handle::current();
        let tasks = (0..8).map(|task| {
            let plugin = plugin.clone();
            runtime.spawn(async move {
                let pins = (0..5_000).map(|n| pin(&format!("allow/{task}/{n}")));
                let promises: Vec<_> = pins.map(|pin| plugin.check_admission(&pin)).collect();
                join_all(promises.iter().map(Promise::wait)).await
            })
        });
        let tasks: Vec<_> = tasks.collect();
        plugin.check_admission(&pin("allow/first")).wait().await.expect("admitted");
        plugin.close(GRACE).await;
        for task in join_all(tasks).await {
            for result in task.expect("no panic") {
                let aborted = |error: admission_host::CheckError| error.kind() == ErrorKind::Aborted;
                assert!(result.map_or_else(aborted, |()| true));
            }
        }
    }
}

/// Not in every mode: a million checks take a minute in a debug build.
#[tokio::test]
async fn a_check_beyond_a_million_pending_ones_fails_at_once() {
    guarded(async {
        for mode in [Mode::Native, Mode::Component] {
            let plugin = host().plugin(mode.fixture("never-read"));
            let first = plugin.check_admission(&pin("first"));
            for n in 1..1_000_000 {
                let _pending = plugin.check_admission(&pin(&n.to_string()));
            }
            let rejected = plugin.check_admission(&pin("one/too/many"));
            assert!(rejected.is_settled());
            let error = rejected.wait().await.expect_err("overloaded");
            assert_eq!(error.kind(), ErrorKind::Overload);
            let text = "too many admission checks are pending: 1000000";
            assert_eq!(error.to_string(), text);
            // A cached promise is not a further check.
            assert!(plugin.check_admission(&pin("first")).same_as(&first));
            assert!(!first.is_settled());
            plugin.close(Duration::ZERO).await;
            assert!(first.is_settled());
        }
    })
    .await;
}
