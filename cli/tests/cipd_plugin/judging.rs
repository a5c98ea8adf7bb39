//! What the plugin answers, and what it asks.

use std::sync::Arc;

use conformance::modes::native;
use conformance::repositories::{Counted, Failing, Scripted, Stuck, entries};
use conformance::{
    Code, Detail, ErrorKind, GRACE, Host, MemoryRepository, MetadataPage, Pin, Plugin, Status,
    Wire, eventually, host, host_with, options, pin,
};

use crate::demo;
use crate::relay::{Inner, Told, over_both_wires, relayed_command, told, told_of_all};

/// Asks the same of the plugin itself and of `admit cipd-plugin`, and returns what both say.
async fn both(
    host: &Host,
    (inner, wire): (Inner, Wire),
    plugin: &str,
    pins: &[Pin],
) -> Vec<Option<Told>> {
    let direct = told_of_all(host, inner.direct(plugin), pins).await;
    let relayed = told_of_all(host, inner.relayed(wire, plugin, &[]), pins).await;
    assert_eq!(relayed, direct, "{inner:?} {wire:?}");
    direct
}

fn pins(packages: &[&str]) -> Vec<Pin> {
    packages.iter().map(|package| pin(package)).collect()
}

over_both_wires! {
    async fn the_example_policy_judges_as_it_does_without_it(wire: Wire) {
        let pins = demo::pins();
        for inner in Inner::BOTH {
            let metadata = MemoryRepository::from_json_file(demo::folder().join("metadata.json")).unwrap();
            let outcomes = both(&host_with(metadata), (inner, wire), "wasm-policy", &pins).await;
            let denied = outcomes.iter().flatten().count();
            assert!(0 < denied && denied < outcomes.len(), "{outcomes:?}");
        }
    }

    async fn verdicts_pass_with_code_message_and_details(wire: Wire) {
        let packages = [
            "allow/a",
            "deny/b",
            "detail",
            "code/1",
            "code/5",
            "code/12345",
            "code/-7",
            "no-such-order",
        ];
        for inner in Inner::BOTH {
            let outcomes = both(&host(), (inner, wire), "conformance-fixture", &pins(&packages)).await;
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
        for inner in Inner::BOTH {
            let repository = Counted::with_entries(&pin("visit-all/7"), 15);
            let host = host_with(repository.clone());
            let outcomes = both(&host, (inner, wire), "conformance-fixture", &pins(&packages)).await;
            let visited = &outcomes[0].as_ref().unwrap().message;
            assert_eq!(visited.split(' ').count(), 15);
        }
    }

    async fn a_message_longer_than_a_host_keeps_is_cut_once(wire: Wire) {
        for inner in Inner::BOTH {
            let host = host_with(Scripted::at_once(2_000, 1));
            let pins = pins(&["visit-all/0"]);
            let outcomes = both(&host, (inner, wire), "conformance-fixture", &pins).await;
            let message = &outcomes[0].as_ref().unwrap().message;
            assert_eq!(message.matches("(truncated, ").count(), 1, "{message}");
        }
    }

    async fn errors_of_the_clients_repository_pass_with_code_message_and_details(wire: Wire) {
        let detail = Detail {
            type_url: "type.example.com/quota".into(),
            value: vec![8, 1],
        };
        let status = Status::new(Code::from(8), "out of\nquota").with_detail(detail.clone());
        for inner in Inner::BOTH {
            let host = host_with(Failing(status.clone()));
            let outcomes = both(&host, (inner, wire), "conformance-fixture", &pins(&["metadata"])).await;
            let told = outcomes[0].as_ref().unwrap();
            assert_eq!((told.code, &*told.message), (Some(8), "out of\nquota"));
            assert_eq!(told.details, std::slice::from_ref(&detail));
        }
        let (host, pins) = (host(), pins(&["metadata"]));
        let without = both(&host, (Inner::Command, wire), "conformance-fixture", &pins).await;
        assert_eq!(without[0].as_ref().unwrap().code, Some(12));
    }

    async fn a_package_with_16_mib_of_metadata_is_judged(wire: Wire) {
        for inner in Inner::BOTH {
            let host = host_with(Scripted::at_once(32, 512 << 10));
            let pins = pins(&["visit-all/20"]);
            let outcomes = both(&host, (inner, wire), "conformance-fixture", &pins).await;
            let visited = &outcomes[0].as_ref().unwrap().message;
            assert_eq!(visited.split(' ').count(), 32);
        }
    }

    async fn a_plugin_may_ask_about_other_packages_than_the_one_it_judges(wire: Wire) {
        let fixture = [native("conformance-fixture").into(), "eager".into()];
        let repository = Scripted::new(|_, request| {
            let count = request.package.strip_prefix("packages/").unwrap();
            Ok(MetadataPage::new(entries(count.parse().unwrap(), 1), ""))
        });
        let plugin = host_with(repository).plugin(relayed_command(wire, &[], &fixture));
        let told = told(&plugin.check_admission(&pin("a"))).await.unwrap();
        let sizes: Vec<u32> = told
            .message
            .split(' ')
            .map(|n| n.parse().unwrap())
            .collect();
        assert_eq!(sizes.iter().sum::<u32>(), 28);
        plugin.close(GRACE).await;
    }

    async fn the_service_of_the_client_is_the_plugins_service(wire: Wire) {
        for inner in Inner::BOTH {
            let judged = pin("visit-all/0");
            let repository = Counted::with_entries(&judged, 1);
            let options = options()
                .service_url("https://other.example.com")
                .repository(Arc::new(repository.clone()));
            // A call for another service than the client's is refused.
            let outcomes = both(&Host::new(options), (inner, wire), "conformance-fixture", &[judged]).await;
            assert_eq!(outcomes[0].as_ref().unwrap().message, "k00");
            assert_eq!(repository.calls(), 2);
        }
    }

    async fn what_the_client_asks_again_is_judged_again(wire: Wire) {
        for inner in Inner::BOTH {
            let judged = pin("visit-all/0");
            let repository = Counted::with_entries(&judged, 3);
            let source = inner.relayed(wire, "conformance-fixture", &[]);
            let plugin = host_with(repository.clone()).plugin(source);
            for judgments in 1..=3 {
                for _ in 0..2 {
                    let told = told(&plugin.check_admission(&judged)).await.unwrap();
                    assert_eq!(told.message, "k00 k01 k02");
                    assert_eq!(repository.calls(), judgments, "the cache is the client's");
                }
                plugin.clear_cache();
            }
            plugin.close(GRACE).await;
        }
    }

    async fn ten_thousand_checks_get_the_verdict_of_their_own(wire: Wire) {
        for inner in Inner::BOTH {
            let plugin = host().plugin(inner.relayed(wire, "conformance-fixture", &[]));
            let asked = (0..10_000).map(|n| {
                let order = if n % 3 == 0 { "deny" } else { "allow" };
                let package = format!("{order}/{n}");
                let check = plugin.check_admission(&pin(&package));
                (package, check)
            });
            let asked: Vec<_> = asked.collect();
            for (package, check) in asked {
                let message = told(&check).await.map(|told| told.message);
                let denial = format!("{package} is denied");
                assert_eq!(message, package.starts_with("deny").then_some(denial));
            }
            plugin.close(GRACE).await;
        }
    }

    async fn a_call_for_metadata_ends_with_its_check(wire: Wire) {
        let fixture = [native("conformance-fixture").into(), "shared".into()];
        let repository = Stuck::default();
        let host = host_with(repository.clone());
        let plugin = host.plugin(relayed_command(wire, &[], &fixture));
        let check = plugin.check_admission(&pin("ask/a"));
        eventually(|| repository.under_way() == 1).await;
        let other = plugin.check_admission(&pin("decide/b"));
        assert_eq!(told(&check).await.unwrap().message, "denied first");
        assert_eq!(told(&other).await.unwrap().code, Some(1));
        eventually(|| repository.under_way() == 0).await;
        plugin.close(GRACE).await;
    }
}
