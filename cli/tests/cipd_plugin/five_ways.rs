//! One policy, by every way from a client to it: a client learns the same.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use conformance::modes::native;
use conformance::repositories::Scripted;
use conformance::{
    Class, Code, Detail, GRACE, Host, InstanceMetadata, JsonRepository, MemoryRepository,
    NativeCommand, Pin, Plugin, Source, Status, Wire, guarded, host_with, pin,
};

use crate::demo;
use crate::relay::{Inner, Told, told};

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
    fn source(self, plugin: &str) -> Source {
        match self {
            Self::Native(wire) => NativeCommand::new([native(plugin)]).wire(wire).into(),
            Self::Component => Inner::Component.direct(plugin),
            Self::Relayed(inner, wire) => inner.relayed(wire, plugin, &[]).into(),
        }
    }
}

/// Asks about all pins by one way, and returns what the client learns of each.
async fn ask(host: &Host, source: Source, pins: &[Pin]) -> Vec<Option<Told>> {
    let plugin = Plugin::new(host, source);
    let checks: Vec<_> = pins.iter().map(|pin| plugin.check_admission(pin)).collect();
    let mut outcomes = Vec::new();
    for check in &checks {
        outcomes.push(told(check).await);
    }
    plugin.close(GRACE).await;
    outcomes
}

/// Asks about all pins by every way, and returns what the client learns by each of them.
async fn by_every_way(host: &Host, plugin: &str, pins: &[Pin]) -> Vec<Option<Told>> {
    let [first, others @ ..] = WAYS;
    let expected = ask(host, first.source(plugin), pins).await;
    let mut differences = String::new();
    for way in others {
        let outcomes = ask(host, way.source(plugin), pins).await;
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
        let metadata = JsonRepository::from_file(demo::folder().join("metadata.json")).unwrap();
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
        for pin in pins.iter().step_by(2) {
            metadata.insert(pin, (0..3).map(entry).collect());
        }
        for package in orders {
            metadata.insert(&pin(package), (3..33).map(entry).collect());
        }
        let outcomes = by_every_way(&host_with(metadata), "conformance-fixture", &pins).await;
        let of = |class| {
            let told = outcomes.iter().flatten();
            told.filter(|told| told.class == class).count()
        };
        let admitted = outcomes.iter().filter(|outcome| outcome.is_none()).count();
        assert!(admitted > 50 && of(Class::Denied) > 50 && of(Class::Rejected) > 20);
        let known = admitted + of(Class::Denied) + of(Class::Rejected);
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
        for code in -1..=17 {
            statuses.push(Status::new(Code::from(code), "as asked"));
        }
        for message in messages {
            let status = Status::new(Code::RESOURCE_EXHAUSTED, message);
            statuses.push(status.clone());
            statuses.push(status.with_detail(detail(3)).with_detail(detail(0)));
        }
        let odd = Status::new(Code::from(12345), "odd");
        statuses.push(odd.clone());
        statuses.push(odd.with_detail(detail(1)));
        for length in [2 << 10, (2 << 10) + 1, 4 << 10, 5000, 100_000] {
            statuses.push(Status::new(Code::UNAVAILABLE, "x".repeat(length)));
        }
        for size in [3000, 5000, 100_000] {
            statuses.push(Status::new(Code::UNAVAILABLE, "x").with_detail(detail(size)));
        }
        let package = |n: usize| format!("metadata/{n}");
        let pins: Vec<Pin> = (0..statuses.len()).map(|n| pin(&package(n))).collect();
        let repository = Scripted::new(move |_, request| {
            let asked = (0..statuses.len()).find(|&n| request.package == package(n));
            Err(statuses[asked.unwrap()].clone())
        });
        let outcomes = by_every_way(&host_with(repository), "conformance-fixture", &pins).await;
        let failed = outcomes.iter().flatten().count();
        assert_eq!(failed, pins.len(), "no error admits");
    })
    .await;
}
