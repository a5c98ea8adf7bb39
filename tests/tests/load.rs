//! Many checks, and plugins that end in the middle of them.

use std::time::Duration;

use admission_host::{ErrorKind, Exit};
use conformance::{GRACE, Mode, Plugin, PluginState, Promise, host, in_every_mode, pin};
use futures_util::future::join_all;

fn ask(plugin: &Plugin, count: usize) -> Vec<Promise> {
    (0..count)
        .map(|n| plugin.check_admission(&pin(&format!("allow/{n}"))))
        .collect()
}

in_every_mode! {
    async fn a_hundred_thousand_checks_are_all_answered(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let results = join_all(ask(&plugin, 100_000).iter().map(Promise::wait)).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 100_000);
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn more_than_a_million_pending_checks_are_refused_at_once(mode: Mode) {
        let plugin = host().plugin(mode.fixture("deaf"));
        let first = plugin.check_admission(&pin("first"));
        for n in 1..1_000_000 {
            let _pending = plugin.check_admission(&pin(&n.to_string()));
        }
        let refused = plugin.check_admission(&pin("one/too/many"));
        assert!(refused.is_settled());
        let error = refused.wait().await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Overload);
        assert_eq!(error.to_string(), "too many admission checks are pending: 1000000");
        // Asked before, and so no further check.
        assert!(plugin.check_admission(&pin("first")).same_as(&first));
        assert!(!first.is_settled());
        plugin.close(Duration::ZERO).await;
        assert!(first.is_settled());
    }

    async fn a_plugin_that_dies_has_its_verdicts_heard_and_its_exit_told(mode: Mode) {
        let plugin = host().plugin(mode.fixture("die-at-5000"));
        let results = join_all(ask(&plugin, 10_000).iter().map(Promise::wait)).await;
        let (verdicts, failures): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!((verdicts.len(), failures.len()), (5_000, 5_000));
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

    async fn a_close_amid_a_flood_of_checks_leaves_nobody_waiting(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let runtime = tokio::runtime::Handle::current();
        let askers = (0..8).map(|asker| {
            let plugin = plugin.clone();
            runtime.spawn(async move {
                let pins = (0..5_000).map(|n| pin(&format!("allow/{asker}/{n}")));
                let promises: Vec<_> = pins.map(|pin| plugin.check_admission(&pin)).collect();
                join_all(promises.iter().map(Promise::wait)).await
            })
        });
        let askers: Vec<_> = askers.collect();
        plugin.check_admission(&pin("allow/first")).wait().await.expect("admitted");
        plugin.close(GRACE).await;
        for asker in join_all(askers).await {
            for result in asker.expect("no panic") {
                let aborted = |error: admission_host::CheckError| error.kind() == ErrorKind::Aborted;
                assert!(result.map_or_else(aborted, |()| true));
            }
        }
    }
}
