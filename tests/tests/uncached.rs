//! Checks that are asked anew, each with a service and a repository of its own.

use std::sync::Arc;

use conformance::repositories::{Counted, Gated, Recorded, Scripted};
use conformance::{
    Code, ErrorKind, GRACE, InstanceMetadata, Mode, Pin, Plugin, PluginState, Promise, Repository,
    error_of, eventually, host, host_with, in_every_stdio_mode, pin,
};

const HERE: &str = "https://here.example.com";
const THERE: &str = "https://there.example.com";

fn ask(plugin: &Plugin, pin: &Pin, url: &str, repository: impl Repository + 'static) -> Promise {
    plugin.check_uncached(pin, url, Arc::new(repository))
}

/// Answers with one entry of this key, and keeps what was asked.
fn only(key: &str) -> Recorded {
    Recorded::answering(vec![InstanceMetadata::new(key, "value")])
}

in_every_stdio_mode! {
    async fn each_check_has_its_own_service_and_metadata(mode: Mode) {
        let hosts_own = Counted::default();
        let plugin = host_with(hosts_own.clone()).plugin(mode.fixture(""));
        let pin = pin("visit-all/0");
        let (here, there) = (only("here"), only("there"));
        let checks = [
            ask(&plugin, &pin, HERE, here.clone()),
            ask(&plugin, &pin, THERE, there.clone()),
        ];
        // A metadata call says which service it is for; it is the one that the policy was told.
        assert_eq!(error_of(&checks[0]).await.to_string(), "here");
        assert_eq!(error_of(&checks[1]).await.to_string(), "there");
        for (repository, url) in [(here, HERE), (there, THERE)] {
            let [request] = &repository.requests()[..] else {
                panic!("not one: {:?}", repository.requests());
            };
            assert_eq!(request.service_url, url);
        }
        assert_eq!(hosts_own.calls(), 0);
        plugin.close(GRACE).await;
    }

    async fn equal_questions_that_are_pending_together_are_judged_one_by_one(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let pin = pin("visit-all/0");
        let gates = [(); 3].map(|()| Gated::new(Scripted::at_once(1, 1)));
        let checks = gates.clone().map(|gate| ask(&plugin, &pin, HERE, gate));
        // No call is shared, though all ask the same.
        eventually(|| gates.iter().all(|gate| gate.under_way() == 1)).await;
        for (check, gate) in checks.iter().zip(&gates) {
            assert!(!check.is_settled());
            gate.open();
            assert_eq!(error_of(check).await.to_string(), "k00");
        }
        plugin.close(GRACE).await;
    }

    async fn the_cache_neither_answers_nor_learns(mode: Mode) {
        let metadata = Counted::with_entries(&pin("visit-all/0"), 1);
        let plugin = host_with(metadata.clone()).plugin(mode.fixture(""));
        let pin = pin("visit-all/0");
        let kept = plugin.check_admission(&pin);
        assert_eq!(error_of(&kept).await.to_string(), "k00");
        for key in ["first", "second"] {
            let anew = ask(&plugin, &pin, HERE, only(key));
            assert_eq!(error_of(&anew).await.to_string(), key);
        }
        assert!(plugin.check_admission(&pin).same_as(&kept));
        assert_eq!(metadata.calls(), 1);
        plugin.close(GRACE).await;
    }

    async fn a_host_without_metadata_need_not_have_any(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let own = ask(&plugin, &pin("visit-all/0"), HERE, only("own"));
        assert_eq!(error_of(&own).await.to_string(), "own");
        let hosts = error_of(&plugin.check_admission(&pin("visit-all/0"))).await;
        assert_eq!(hosts.code(), Some(Code::UNIMPLEMENTED));
        plugin.close(GRACE).await;
    }

    async fn a_call_for_another_service_than_the_checks_is_refused(mode: Mode) {
        let plugin = host_with(Counted::default()).plugin(mode.fixture("foreign-service"));
        let repository = Counted::default();
        let error = error_of(&ask(&plugin, &pin("a"), HERE, repository.clone())).await;
        assert_eq!(error.code(), Some(Code::PERMISSION_DENIED));
        assert_eq!(
            error.to_string(),
            r#"can query only the CIPD repository the client is using ("https://here.example.com")"#
        );
        assert_eq!(repository.calls(), 0);
        plugin.close(GRACE).await;
    }

    async fn a_verdict_is_as_long_as_the_plugin_made_it(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let metadata = Scripted::at_once(5_000, 1);
        let visited = error_of(&ask(&plugin, &pin("visit-all/0"), HERE, metadata)).await;
        assert_eq!(visited.to_string().split(' ').count(), 5_000);
        plugin.close(GRACE).await;
    }

    async fn an_end_is_told_as_to_any_other_check(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let pending = ask(&plugin, &pin("hang"), HERE, only("unused"));
        eventually(|| plugin.state() == PluginState::Running).await;
        plugin.start_close(GRACE);
        let late = ask(&plugin, &pin("allow/a"), HERE, only("unused"));
        for check in [&pending, &late] {
            assert!(check.is_settled());
            assert_eq!(error_of(check).await.kind(), ErrorKind::Aborted);
        }
        plugin.close(GRACE).await;
    }

    async fn a_repository_is_let_go_when_its_check_is_settled(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let repository = Arc::new(only("key"));
        let check = plugin.check_uncached(&pin("visit-all/0"), HERE, Arc::clone(&repository) as _);
        assert_eq!(error_of(&check).await.to_string(), "key");
        eventually(|| Arc::strong_count(&repository) == 1).await;
        plugin.close(GRACE).await;
    }
}
