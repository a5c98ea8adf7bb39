//! Verdicts and requests for metadata are forwarded unchanged.

use std::sync::Arc;

use conformance::modes::native;
use conformance::repositories::{Counted, Failing, Scripted, Stuck, entries};
use conformance::{
    Code, Detail, ErrorKind, GRACE, Host, MemoryRepository, MetadataPage, Pin, Status, Wire,
    eventually, host, host_with, options, pin,
};

use super::demo;
use super::forwarding::{
    Outcome, PolicyKind, forwarded_command, outcome, outcomes_of, over_both_wires,
};

/// Checks the pins with the plugin itself and with `admit cipd-plugin`, requires equal
/// outcomes, and returns them.
async fn compare_outcomes(
    host: &Host,
    (policy, wire): (PolicyKind, Wire),
    plugin: &str,
    pins: &[Pin],
) -> Vec<Option<Outcome>> {
    let direct = outcomes_of(host, policy.direct(plugin), pins).await;
    let forwarded = outcomes_of(host, policy.forwarded(wire, plugin, &[]), pins).await;
    assert_eq!(forwarded, direct, "{policy:?} {wire:?}");
    direct
}

fn pins(packages: &[&str]) -> Vec<Pin> {
    packages.iter().map(|package| pin(package)).collect()
}

over_both_wires! {
    async fn the_example_policy_has_the_same_verdicts(wire: Wire) {
        let pins = demo::pins();
        for policy in PolicyKind::BOTH {
            let metadata = MemoryRepository::from_json_file(demo::folder().join("metadata.json")).unwrap();
            let outcomes = compare_outcomes(&host_with(metadata), (policy, wire), "wasm-policy", &pins).await;
            let denied = outcomes.iter().flatten().count();
            assert!(0 < denied && denied < outcomes.len(), "{outcomes:?}");
        }
    }

    async fn verdicts_keep_their_code_message_and_details(wire: Wire) {
        let packages = [
            "allow/a",
            "deny/b",
            "detail",
            "code/1",
            "code/5",
            "code/12345",
            "code/-7",
            "no-such-action",
        ];
        for policy in PolicyKind::BOTH {
            let outcomes = compare_outcomes(&host(), (policy, wire), "conformance-fixture", &pins(&packages)).await;
            assert_eq!(outcomes[0], None);
            let detail = outcomes[2].as_ref().unwrap();
            assert_eq!((detail.kind, detail.details.len()), (ErrorKind::Denied, 1));
        }
    }

    async fn metadata_comes_from_the_client_page_by_page(wire: Wire) {
        let packages = [
            "visit-all/7",
            "visit-all/0",
            "visit-first",
            "provenance",
            "metadata",
        ];
        for policy in PolicyKind::BOTH {
            let repository = Counted::with_entries(&pin("visit-all/7"), 15);
            let host = host_with(repository.clone());
            let outcomes = compare_outcomes(&host, (policy, wire), "conformance-fixture", &pins(&packages)).await;
            let visited = &outcomes[0].as_ref().unwrap().message;
            assert_eq!(visited.split(' ').count(), 15);
        }
    }

    async fn a_long_message_is_truncated_once(wire: Wire) {
        for policy in PolicyKind::BOTH {
            let host = host_with(Scripted::at_once(2_000, 1));
            let pins = pins(&["visit-all/0"]);
            let outcomes = compare_outcomes(&host, (policy, wire), "conformance-fixture", &pins).await;
            let message = &outcomes[0].as_ref().unwrap().message;
            assert_eq!(message.matches("(truncated, ").count(), 1, "{message}");
        }
    }

    async fn errors_of_the_clients_repository_keep_their_code_message_and_details(wire: Wire) {
        let detail = Detail {
            type_url: "type.example.com/quota".into(),
            value: vec![8, 1],
        };
        let status = Status::new(Code::from(8), "out of\nquota").with_detail(detail.clone());
        for policy in PolicyKind::BOTH {
            let host = host_with(Failing(status.clone()));
            let outcomes = compare_outcomes(&host, (policy, wire), "conformance-fixture", &pins(&["metadata"])).await;
            let outcome = outcomes[0].as_ref().unwrap();
            assert_eq!((outcome.code, &*outcome.message), (Some(8), "out of\nquota"));
            assert_eq!(outcome.details, std::slice::from_ref(&detail));
        }
        let (host, pins) = (host(), pins(&["metadata"]));
        let without = compare_outcomes(&host, (PolicyKind::Command, wire), "conformance-fixture", &pins).await;
        assert_eq!(without[0].as_ref().unwrap().code, Some(12));
    }

    async fn a_package_with_16_mib_of_metadata_gets_a_verdict(wire: Wire) {
        for policy in PolicyKind::BOTH {
            let host = host_with(Scripted::at_once(32, 512 << 10));
            let pins = pins(&["visit-all/20"]);
            let outcomes = compare_outcomes(&host, (policy, wire), "conformance-fixture", &pins).await;
            let visited = &outcomes[0].as_ref().unwrap().message;
            assert_eq!(visited.split(' ').count(), 32);
        }
    }

    async fn a_plugin_may_request_metadata_of_other_packages(wire: Wire) {
        let fixture = [native("conformance-fixture").into(), "eight-calls".into()];
        let repository = Scripted::new(|_, request| {
            let count = request.package.strip_prefix("packages/").unwrap();
            Ok(MetadataPage::new(entries(count.parse().unwrap(), 1), ""))
        });
        let plugin = host_with(repository).plugin(forwarded_command(wire, &[], &fixture));
        let outcome = outcome(&plugin.check_admission(&pin("a"))).await.unwrap();
        let sizes: Vec<u32> = outcome
            .message
            .split(' ')
            .map(|n| n.parse().unwrap())
            .collect();
        assert_eq!(sizes.iter().sum::<u32>(), 28);
        plugin.close(GRACE).await;
    }

    async fn the_plugin_gets_the_service_url_of_the_client(wire: Wire) {
        for policy in PolicyKind::BOTH {
            let checked = pin("visit-all/0");
            let repository = Counted::with_entries(&checked, 1);
            let options = options()
                .service_url("https://other.example.com")
                .repository(Arc::new(repository.clone()));
            // The client refuses a call with another service URL.
            let outcomes = compare_outcomes(&Host::new(options), (policy, wire), "conformance-fixture", &[checked]).await;
            assert_eq!(outcomes[0].as_ref().unwrap().message, "k00");
            assert_eq!(repository.calls(), 2);
        }
    }

    async fn verdicts_are_cached_by_the_client_only(wire: Wire) {
        for policy in PolicyKind::BOTH {
            let checked = pin("visit-all/0");
            let repository = Counted::with_entries(&checked, 3);
            let source = policy.forwarded(wire, "conformance-fixture", &[]);
            let plugin = host_with(repository.clone()).plugin(source);
            for verdicts in 1..=3 {
                for _ in 0..2 {
                    let outcome = outcome(&plugin.check_admission(&checked)).await.unwrap();
                    assert_eq!(outcome.message, "k00 k01 k02");
                    assert_eq!(repository.calls(), verdicts, "the cache is the client's");
                }
                plugin.clear_cache();
            }
            plugin.close(GRACE).await;
        }
    }

    async fn a_thousand_checks_get_their_own_verdicts(wire: Wire) {
        for policy in PolicyKind::BOTH {
            let plugin = host().plugin(policy.forwarded(wire, "conformance-fixture", &[]));
            let asked = (0..1000).map(|n| {
                let action = if n % 3 == 0 { "deny" } else { "allow" };
                let package = format!("{action}/{n}");
                let check = plugin.check_admission(&pin(&package));
                (package, check)
            });
            let asked: Vec<_> = asked.collect();
            for (package, check) in asked {
                let message = outcome(&check).await.map(|outcome| outcome.message);
                let denial = format!("{package} is denied");
                assert_eq!(message, package.starts_with("deny").then_some(denial));
            }
            plugin.close(GRACE).await;
        }
    }

    async fn a_metadata_call_ends_with_its_check(wire: Wire) {
        let fixture = [native("conformance-fixture").into(), "shared".into()];
        let repository = Stuck::default();
        let host = host_with(repository.clone());
        let plugin = host.plugin(forwarded_command(wire, &[], &fixture));
        let check = plugin.check_admission(&pin("ask/a"));
        eventually(|| repository.under_way() == 1).await;
        let other = plugin.check_admission(&pin("decide/b"));
        assert_eq!(outcome(&check).await.unwrap().message, "denied first");
        assert_eq!(outcome(&other).await.unwrap().code, Some(1));
        eventually(|| repository.under_way() == 0).await;
        plugin.close(GRACE).await;
    }
}
