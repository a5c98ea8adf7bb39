//! One policy, by every way from a client to it: a client learns the same.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use conformance::modes::native;
use conformance::repositories::{Scripted, entries};
use conformance::{
    Code, Detail, ErrorKind, GRACE, Host, InstanceMetadata, MemoryRepository, MetadataPage,
    NativeCommand, Pin, Plugin, PluginOptions, Source, Status, Wire, guarded, host, host_with,
    options, pin,
};

use crate::demo;
use crate::relay::{Inner, Told, told, told_of_all};

/// The ways, the first of which is what the others are compared with.
const WAYS: [Way; 7] = [
    Way::Native(Wire::Stdio),
    Way::Native(Wire::Grpc),
    Way::Component,
    Way::Relayed(Inner::Component, Wire::Stdio),
    Way::Relayed(Inner::Component, Wire::Grpc),
    Way::Relayed(Inner::Command, Wire::Stdio),
    Way::Relayed(Inner::Command, Wire::Grpc),
];

/// How a client reaches a policy.
#[derive(Debug, Clone, Copy)]
enum Way {
    Native(Wire),
    Component,
    /// By `admit cipd-plugin`, over this wire.
    Relayed(Inner, Wire),
}

impl Way {
    /// Returns the plugin of this name. The options are for `admit cipd-plugin`.
    fn source(self, plugin: &str, options: &[&str]) -> Source {
        match self {
            Self::Native(wire) => NativeCommand::new([native(plugin)]).wire(wire).into(),
            Self::Component => Inner::Component.direct(plugin),
            Self::Relayed(inner, wire) => inner.relayed(wire, plugin, options).into(),
        }
    }
}

/// Asks about all pins by every way, and returns what the client learns by each of them.
async fn by_every_way(host: &Host, plugin: &str, pins: &[Pin]) -> Vec<Option<Told>> {
    let [first, others @ ..] = WAYS;
    let expected = told_of_all(host, first.source(plugin, &[]), pins).await;
    let mut differences = String::new();
    for way in others {
        let outcomes = told_of_all(host, way.source(plugin, &[]), pins).await;
        for ((pin, expected), outcome) in pins.iter().zip(&expected).zip(&outcomes) {
            if outcome != expected {
                let package = pin.package();
                writeln!(
                    differences,
                    "{package}\n  {first:?}: {expected:?}\n  {way:?}: {outcome:?}"
                )
                .unwrap();
            }
        }
    }
    assert!(differences.is_empty(), "the ways differ:\n{differences}");
    expected
}

/// Returns an entry of which every field says something.
fn entry(n: u64) -> InstanceMetadata {
    // Not UTF-8 to its end.
    let mut entry = InstanceMetadata::new(format!("key-{}", n % 3), [n as u8, b'\n', 0xff]);
    entry.content_type = "text/plain; charset=utf-8".into();
    entry.attached_by = format!("user:\u{e4}{n}@example.com");
    // Entries with the same time are in the order of their keys, and one has no time.
    let at = Duration::new(1_700_000_000 + n / 4, 123_456_789);
    entry.attached_ts = (n > 0).then(|| SystemTime::UNIX_EPOCH + at);
    entry
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_policy_judges_the_same_by_every_way() {
    guarded(async {
        let metadata =
            MemoryRepository::from_json_file(demo::folder().join("metadata.json")).unwrap();
        let outcomes = by_every_way(&host_with(metadata), "wasm-policy", &demo::pins()).await;
        let denied = outcomes.iter().flatten().count();
        assert!(0 < denied && denied < outcomes.len(), "{outcomes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_are_the_same_by_every_way() {
    guarded(async {
        let orders = [
            "allow",
            "deny/x",
            "detail",
            "service",
            "no-such-order",
            "visit-all/7",
            "visit-all/0",
            "visit-all/-1",
            "visit-first",
            "provenance",
            "metadata",
        ];
        let codes = (-1..=17).chain([12345, i32::MIN, i32::MAX]);
        let packages = orders.map(str::to_owned).into_iter();
        let packages = packages.chain(codes.map(|code| format!("code/{code}")));
        // One in eight of these asks for metadata, and half of them are there.
        let packages = packages.chain((0..200).map(|n| format!("hash/{n}")));
        let pins: Vec<Pin> = packages.map(|package| pin(&package)).collect();
        let mut metadata = MemoryRepository::new();
        for pin in pins.iter().skip(orders.len()).step_by(2) {
            metadata.insert(pin, (0..3).map(entry).collect());
        }
        for package in orders {
            metadata.insert(&pin(package), (0..30).map(entry).collect());
        }
        let options = options()
            .service_url("https://other.example.com")
            .repository(Arc::new(metadata));
        let outcomes = by_every_way(&Host::new(options), "conformance-fixture", &pins).await;
        let of = |kind| {
            let told = outcomes.iter().flatten();
            told.filter(|told| told.kind == kind).count()
        };
        let admitted = outcomes.iter().filter(|outcome| outcome.is_none()).count();
        assert!(admitted > 50 && of(ErrorKind::Denied) > 50 && of(ErrorKind::PolicyError) > 20);
        let known = admitted + of(ErrorKind::Denied) + of(ErrorKind::PolicyError);
        assert_eq!(known, pins.len(), "the plugin has answered each");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_repository_are_the_same_by_every_way() {
    guarded(async {
        let detail = |size| Detail {
            type_url: "type.example.com/d\u{e9}tail".into(),
            value: vec![0xff; size],
        };
        let messages = ["out of\nquota \u{1b}[2J 100% \u{1f4e6} ", "", "  ", "%41"];
        let mut statuses = Vec::new();
        for code in (-1..=17).chain([12345]) {
            let status = Status::new(Code::from(code), "as asked");
            statuses.push(status.clone());
            statuses.push(status.with_detail(detail(1)));
        }
        for message in messages {
            let status = Status::new(Code::RESOURCE_EXHAUSTED, message);
            statuses.push(status.clone());
            statuses.push(status.with_detail(detail(3)).with_detail(detail(0)));
        }
        // What is too long for the headers of gRPC is cut over both wires.
        for length in [2 << 10, (2 << 10) + 1, 4 << 10, 5000, 100_000] {
            statuses.push(Status::new(Code::UNAVAILABLE, "x".repeat(length)));
        }
        for size in [3000, 5000, 100_000] {
            statuses.push(Status::new(Code::UNAVAILABLE, "x").with_detail(detail(size)));
        }
        let package = |n: usize| format!("metadata/{n}");
        let pins: Vec<Pin> = (0..statuses.len()).map(|n| pin(&package(n))).collect();
        let statuses = Arc::new(statuses);
        let repository = Scripted::new({
            let statuses = Arc::clone(&statuses);
            move |_, request| {
                let asked = (0..statuses.len()).find(|&n| request.package == package(n));
                Err(statuses[asked.unwrap()].clone())
            }
        });
        let outcomes = by_every_way(&host_with(repository), "conformance-fixture", &pins).await;
        for (status, outcome) in statuses.iter().zip(&outcomes) {
            let told = outcome.as_ref().expect("no error admits");
            let known = (1..=16).contains(&status.code.number());
            // Codes that gRPC has not are UNKNOWN over both wires.
            let code = if known { status.code.number() } else { 2 };
            assert_eq!(told.code, Some(code));
            if told.message.ends_with(" bytes)") {
                let size = status.details.iter().map(|detail| detail.value.len()).max();
                assert!(status.message.len().max(size.unwrap_or(0)) > 2_000);
                continue;
            }
            assert_eq!(
                (&told.message, &told.details),
                (&status.message, &status.details)
            );
        }
        let asked = [pin("metadata")];
        let outcomes = by_every_way(&host(), "conformance-fixture", &asked).await;
        assert_eq!(outcomes[0].as_ref().unwrap().code, Some(12), "none to ask");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_pages_of_the_repository_are_the_same_by_every_way() {
    guarded(async {
        let orders = [
            "visit-all/20",
            "visit-all/7",
            "visit-all/0",
            "visit-first",
            "metadata/huge",
            "metadata/repeated",
        ];
        let repository = Scripted::new(|_, request| {
            let token = &request.page_token;
            let page = match request.package.as_str() {
                // Of 16 MiB, all at once.
                "visit-all/20" if token.is_empty() => MetadataPage::new(entries(32, 512 << 10), ""),
                // More than was asked for.
                "visit-all/7" if token.is_empty() => MetadataPage::new(entries(40, 100), "next"),
                "visit-all/7" => MetadataPage::new(entries(3, 100), ""),
                // Keys for a longer message than a host keeps.
                "visit-all/0" if token.is_empty() => MetadataPage::new(entries(2_000, 1), ""),
                "visit-first" => MetadataPage::new(entries(1, 0), "next"),
                "metadata/huge" => MetadataPage::new(entries(1, 5 << 20), ""),
                "metadata/repeated" => MetadataPage::new(Vec::new(), "next"),
                _ => return Err(Status::new(Code::INVALID_ARGUMENT, "no such page")),
            };
            Ok(page)
        });
        let pins = orders.map(pin);
        let outcomes = by_every_way(&host_with(repository), "conformance-fixture", &pins).await;
        let codes = outcomes.iter().flatten().map(|told| told.code.unwrap());
        assert_eq!(codes.collect::<Vec<_>>(), [9, 9, 9, 9, 8, 13]);
    })
    .await;
}

/// Returns what a client is told of a check that ends without a status.
fn failure(kind: ErrorKind, message: &str) -> Option<Told> {
    Some(Told {
        kind,
        code: None,
        message: message.into(),
        details: Vec::new(),
    })
}

/// Returns what a client is told by `admit cipd-plugin` of what it is told without it: a
/// plugin can fail a check with a status alone, which holds what else would be the kind.
fn relayed(told: Option<Told>) -> Option<Told> {
    let told = told?;
    if told.code.is_some() {
        return Some(told);
    }
    let code = match told.kind {
        ErrorKind::Timeout => 4,
        _ => 13,
    };
    Some(Told {
        kind: ErrorKind::PolicyError,
        code: Some(code),
        message: format!("{}: {}", told.kind, told.message),
        ..told
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_the_same_by_every_way_but_for_what_a_component_is() {
    let crash = |exit: &str| {
        let message = format!("the admission plugin terminated: {exit}");
        failure(ErrorKind::Crash, &message)
    };
    let late = failure(
        ErrorKind::Timeout,
        "the admission plugin did not answer within 0.5s",
    );
    let trap = failure(
        ErrorKind::Trap,
        "the admission plugin terminated: trap: wasm `unreachable` instruction executed",
    );
    let panicked = Some(Told {
        kind: ErrorKind::PolicyError,
        code: Some(10),
        message: "panic in the admission handler: the fixture panics".into(),
        details: Vec::new(),
    });
    // What a native plugin and a component make of two orders, one after the other.
    let cases = [
        (
            ["hang", "allow/a"],
            [late.clone(), None],
            [late.clone(), None],
        ),
        // WASI 0.2 keeps no number of an exit.
        (
            ["exit/7", "allow/a"],
            [crash("exit status 7"), crash("exit status 7")],
            [crash("exit status 1"), crash("exit status 1")],
        ),
        // Nothing unwinds in a component: it tells of its panic, and is no more.
        (
            ["panic", "allow/a"],
            [panicked.clone(), None],
            [panicked.clone(), trap.clone()],
        ),
    ];
    guarded(async {
        let host = host();
        for (orders, native, component) in &cases {
            for way in WAYS {
                let expected = match way {
                    Way::Native(_) | Way::Relayed(Inner::Command, _) => native,
                    Way::Component | Way::Relayed(Inner::Component, _) => component,
                };
                let expected = match way {
                    Way::Relayed(..) => expected.clone().map(relayed),
                    Way::Native(_) | Way::Component => expected.clone(),
                };
                let source = way.source("conformance-fixture", &["--timeout", "500ms"]);
                let patience = match way {
                    // Its own must not be over first.
                    Way::Relayed(..) => PluginOptions::default(),
                    Way::Native(_) | Way::Component => {
                        PluginOptions::default().check_timeout(Duration::from_millis(500))
                    }
                };
                let plugin = host.plugin_with_options(source, patience);
                let mut outcomes = Vec::new();
                for order in orders {
                    outcomes.push(told(&plugin.check_admission(&pin(order))).await);
                }
                plugin.close(GRACE).await;
                assert_eq!(outcomes, expected, "{orders:?} by {way:?}");
            }
        }
    })
    .await;
}
