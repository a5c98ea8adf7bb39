//! Uncached checks, each with its own service and repository.

use std::sync::Arc;

use conformance::repositories::{Counted, Gated, Recorded, Scripted};
use conformance::{
    Code, ErrorKind, GRACE, InstanceMetadata, Mode, Pin, Plugin, PluginState, Promise, Repository,
    error_of, eventually, host, host_with, in_every_stdio_mode, pin,
};

const HERE: &str = "https://here.example.com";
const THERE: &str = "https://there.example.com";

fn check(plugin: &Plugin, pin: &Pin, url: &str, repository: impl Repository + 'static) -> Promise {
    plugin.check_uncached(pin, url, Arc::new(repository))
}

/// Returns a repository that answers with one entry of this key and records the requests.
fn only(key: &str) -> Recorded {
    Recorded::answering(vec![InstanceMetadata::new(key, "value")])
}

in_every_stdio_mode! {
    async fn each_check_has_its_own_service_and_metadata(mode: Mode) {
        let of_host = Counted::default();
        let plugin = host_with(of_host.clone()).plugin(mode.fixture(""));
        let pin = pin("visit-all/0");
        let (here, there) = (only("here"), only("there"));
        let checks = [
            check(&plugin, &pin, HERE, here.clone()),
            check(&plugin, &pin, THERE, there.clone()),
        ];
        // The policy learns the service from its admission and names it in the metadata call.
        assert_eq!(error_of(&checks[0]).await.to_string(), "here");
        assert_eq!(error_of(&checks[1]).await.to_string(), "there");
        for (repository, url) in [(here, HERE), (there, THERE)] {
            let [request] = &repository.requests()[..] else {
                panic!("not one: {:?}", repository.requests());
            };
            assert_eq!(request.service_url, url);
        }
        assert_eq!(of_host.calls(), 0);
        plugin.close(GRACE).await;
    }

    async fn concurrent_checks_of_the_same_pin_make_their_own_metadata_calls(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let pin = pin("visit-all/0");
        let gates = [(); 3].map(|()| Gated::new(Scripted::at_once(1, 1)));
        let checks = gates.clone().map(|gate| check(&plugin, &pin, HERE, gate));
        // The three equal calls are not shared.
        eventually(|| gates.iter().all(|gate| gate.under_way() == 1)).await;
        for (check, gate) in checks.iter().zip(&gates) {
            assert!(!check.is_settled());
            gate.open();
            assert_eq!(error_of(check).await.to_string(), "k00");
        }
        plugin.close(GRACE).await;
    }

    async fn an_uncached_check_neither_reads_nor_fills_the_cache(mode: Mode) {
        let metadata = Counted::with_entries(&pin("visit-all/0"), 1);
        let plugin = host_with(metadata.clone()).plugin(mode.fixture(""));
        let pin = pin("visit-all/0");
        let kept = plugin.check_admission(&pin);
        assert_eq!(error_of(&kept).await.to_string(), "k00");
        for key in ["first", "second"] {
            let uncached = check(&plugin, &pin, HERE, only(key));
            assert_eq!(error_of(&uncached).await.to_string(), key);
        }
        assert!(plugin.check_admission(&pin).same_as(&kept));
        assert_eq!(metadata.calls(), 1);
        plugin.close(GRACE).await;
    }

    async fn a_host_without_a_repository_can_run_uncached_checks(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let own = check(&plugin, &pin("visit-all/0"), HERE, only("own"));
        assert_eq!(error_of(&own).await.to_string(), "own");
        let hosts = error_of(&plugin.check_admission(&pin("visit-all/0"))).await;
        assert_eq!(hosts.code(), Some(Code::UNIMPLEMENTED));
        plugin.close(GRACE).await;
    }

    async fn a_metadata_call_for_another_service_than_the_check_is_refused(mode: Mode) {
        let plugin = host_with(Counted::default()).plugin(mode.fixture("foreign-service"));
        let repository = Counted::default();
        let error = error_of(&check(&plugin, &pin("a"), HERE, repository.clone())).await;
        assert_eq!(error.code(), Some(Code::PERMISSION_DENIED));
        assert_eq!(
            error.to_string(),
            r#"can query only the CIPD repository the client is using ("https://here.example.com")"#
        );
        assert_eq!(repository.calls(), 0);
        plugin.close(GRACE).await;
    }

    async fn the_message_of_an_uncached_verdict_is_not_cut(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let metadata = Scripted::at_once(5_000, 1);
        let visited = error_of(&check(&plugin, &pin("visit-all/0"), HERE, metadata)).await;
        assert_eq!(visited.to_string().split(' ').count(), 5_000);
        plugin.close(GRACE).await;
    }

    async fn closing_aborts_uncached_checks(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let pending = check(&plugin, &pin("hang"), HERE, only("unused"));
        eventually(|| plugin.state() == PluginState::Running).await;
        plugin.start_close(GRACE);
        let late = check(&plugin, &pin("allow/a"), HERE, only("unused"));
        for check in [&pending, &late] {
            assert!(check.is_settled());
            assert_eq!(error_of(check).await.kind(), ErrorKind::Aborted);
        }
        plugin.close(GRACE).await;
    }

    async fn the_repository_is_dropped_when_its_check_is_settled(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let repository = Arc::new(only("key"));
        let check = plugin.check_uncached(&pin("visit-all/0"), HERE, Arc::clone(&repository) as _);
        assert_eq!(error_of(&check).await.to_string(), "key");
        eventually(|| Arc::strong_count(&repository) == 1).await;
        plugin.close(GRACE).await;
    }
}
