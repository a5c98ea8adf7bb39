//! Every route from a client to a policy gives the same outcomes.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use conformance::modes::native;
use conformance::repositories::{Scripted, entries};
use conformance::{
    Code, Detail, ErrorKind, GRACE, Host, InstanceMetadata, MemoryRepository, MetadataPage,
    NativeCommand, Pin, PluginOptions, Source, Status, Wire, guarded, host, host_with, options,
    pin,
};

use super::demo;
use super::forwarding::{Outcome, PolicyKind, outcome, outcomes_of};

/// All routes. The others are compared with the first.
const ROUTES: [Route; 7] = [
    Route::Native(Wire::Stdio),
    Route::Native(Wire::Grpc),
    Route::Component,
    Route::Forwarded(PolicyKind::Component, Wire::Stdio),
    Route::Forwarded(PolicyKind::Component, Wire::Grpc),
    Route::Forwarded(PolicyKind::Command, Wire::Stdio),
    Route::Forwarded(PolicyKind::Command, Wire::Grpc),
];

/// How the checks of a client reach a policy.
#[derive(Debug, Clone, Copy)]
enum Route {
    Native(Wire),
    Component,
    /// Through `admit cipd-plugin`, over this wire.
    Forwarded(PolicyKind, Wire),
}

impl Route {
    /// Returns the plugin of this name. Only `admit cipd-plugin` gets the options.
    fn source(self, plugin: &str, options: &[&str]) -> Source {
        match self {
            Self::Native(wire) => NativeCommand::new([native(plugin)]).wire(wire).into(),
            Self::Component => PolicyKind::Component.direct(plugin),
            Self::Forwarded(policy, wire) => policy.forwarded(wire, plugin, options).into(),
        }
    }
}

/// Checks all pins by every route, requires equal outcomes, and returns them.
async fn outcomes_by_every_route(host: &Host, plugin: &str, pins: &[Pin]) -> Vec<Option<Outcome>> {
    let [first, others @ ..] = ROUTES;
    let expected = outcomes_of(host, first.source(plugin, &[]), pins).await;
    let mut differences = String::new();
    for route in others {
        let outcomes = outcomes_of(host, route.source(plugin, &[]), pins).await;
        for ((pin, expected), outcome) in pins.iter().zip(&expected).zip(&outcomes) {
            if outcome != expected {
                let package = pin.package();
                writeln!(
                    differences,
                    "{package}\n  {first:?}: {expected:?}\n  {route:?}: {outcome:?}"
                )
                .unwrap();
            }
        }
    }
    assert!(differences.is_empty(), "the routes differ:\n{differences}");
    expected
}

/// Returns an entry without default fields.
fn entry(n: u64) -> InstanceMetadata {
    // The value is not UTF-8.
    let mut entry = InstanceMetadata::new(format!("key-{}", n % 3), [n as u8, b'\n', 0xff]);
    entry.content_type = "text/plain; charset=utf-8".into();
    entry.attached_by = format!("user:\u{e4}{n}@example.com");
    // Some entries have the same time, and are sorted by key. One has no time.
    let at = Duration::new(1_700_000_000 + n / 4, 123_456_789);
    entry.attached_ts = (n > 0).then(|| SystemTime::UNIX_EPOCH + at);
    entry
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_policy_has_the_same_verdicts_by_every_route() {
    guarded(async {
        let metadata =
            MemoryRepository::from_json_file(demo::folder().join("metadata.json")).unwrap();
        let outcomes =
            outcomes_by_every_route(&host_with(metadata), "wasm-policy", &demo::pins()).await;
        let denied = outcomes.iter().flatten().count();
        assert!(0 < denied && denied < outcomes.len(), "{outcomes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_are_the_same_by_every_route() {
    guarded(async {
        let actions = [
            "allow",
            "deny/x",
            "detail",
            "service",
            "no-such-action",
            "visit-all/7",
            "visit-all/0",
            "visit-all/-1",
            "visit-first",
            "provenance",
            "metadata",
        ];
        let codes = (-1..=17).chain([12345, i32::MIN, i32::MAX]);
        let packages = actions.map(str::to_owned).into_iter();
        let packages = packages.chain(codes.map(|code| format!("code/{code}")));
        // For one in eight of these packages the fixture requests metadata. Half of the packages
        // have metadata.
        let packages = packages.chain((0..200).map(|n| format!("hash/{n}")));
        let pins: Vec<Pin> = packages.map(|package| pin(&package)).collect();
        let mut metadata = MemoryRepository::new();
        for pin in pins.iter().skip(actions.len()).step_by(2) {
            metadata.insert(pin, (0..3).map(entry).collect());
        }
        for package in actions {
            metadata.insert(&pin(package), (0..30).map(entry).collect());
        }
        let options = options()
            .service_url("https://other.example.com")
            .repository(Arc::new(metadata));
        let outcomes =
            outcomes_by_every_route(&Host::new(options), "conformance-fixture", &pins).await;
        let of = |kind| {
            let errors = outcomes.iter().flatten();
            errors.filter(|outcome| outcome.kind == kind).count()
        };
        let admitted = outcomes.iter().filter(|outcome| outcome.is_none()).count();
        assert!(admitted > 50 && of(ErrorKind::Denied) > 50 && of(ErrorKind::PolicyError) > 20);
        let known = admitted + of(ErrorKind::Denied) + of(ErrorKind::PolicyError);
        assert_eq!(known, pins.len(), "the plugin has answered each");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_repository_are_the_same_by_every_route() {
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
        // Texts that are too long for gRPC headers are truncated over both wires.
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
        let outcomes =
            outcomes_by_every_route(&host_with(repository), "conformance-fixture", &pins).await;
        for (status, outcome) in statuses.iter().zip(&outcomes) {
            let outcome = outcome.as_ref().expect("no error admits");
            let known = (1..=16).contains(&status.code.number());
            // Codes that gRPC does not have become UNKNOWN over both wires.
            let code = if known { status.code.number() } else { 2 };
            assert_eq!(outcome.code, Some(code));
            if outcome.message.ends_with(" bytes)") {
                let size = status.details.iter().map(|detail| detail.value.len()).max();
                assert!(status.message.len().max(size.unwrap_or(0)) > 2_000);
                continue;
            }
            assert_eq!(
                (&outcome.message, &outcome.details),
                (&status.message, &status.details)
            );
        }
        let asked = [pin("metadata")];
        let outcomes = outcomes_by_every_route(&host(), "conformance-fixture", &asked).await;
        assert_eq!(
            outcomes[0].as_ref().unwrap().code,
            Some(12),
            "no repository"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_pages_of_the_repository_have_the_same_outcome_by_every_route() {
    guarded(async {
        let actions = [
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
                // 16 MiB in one page.
                "visit-all/20" if token.is_empty() => MetadataPage::new(entries(32, 512 << 10), ""),
                // More entries than requested.
                "visit-all/7" if token.is_empty() => MetadataPage::new(entries(40, 100), "next"),
                "visit-all/7" => MetadataPage::new(entries(3, 100), ""),
                // The message with all keys is longer than what a host keeps.
                "visit-all/0" if token.is_empty() => MetadataPage::new(entries(2_000, 1), ""),
                "visit-first" => MetadataPage::new(entries(1, 0), "next"),
                "metadata/huge" => MetadataPage::new(entries(1, 5 << 20), ""),
                "metadata/repeated" => MetadataPage::new(Vec::new(), "next"),
                _ => return Err(Status::new(Code::INVALID_ARGUMENT, "no such page")),
            };
            Ok(page)
        });
        let pins = actions.map(pin);
        let outcomes =
            outcomes_by_every_route(&host_with(repository), "conformance-fixture", &pins).await;
        let codes = outcomes
            .iter()
            .flatten()
            .map(|outcome| outcome.code.unwrap());
        assert_eq!(codes.collect::<Vec<_>>(), [9, 9, 9, 9, 8, 13]);
    })
    .await;
}

/// Returns the outcome of a check without a status of the plugin.
fn failure(kind: ErrorKind, message: &str) -> Option<Outcome> {
    Some(Outcome {
        kind,
        code: None,
        message: message.into(),
        details: Vec::new(),
    })
}

/// Returns the outcome through `admit cipd-plugin` for an outcome without it. A plugin can
/// only send a status, so the status has the kind in its message.
fn forwarded(outcome: Option<Outcome>) -> Option<Outcome> {
    let outcome = outcome?;
    if outcome.code.is_some() {
        return Some(outcome);
    }
    let code = match outcome.kind {
        ErrorKind::Timeout => 4,
        _ => 13,
    };
    Some(Outcome {
        kind: ErrorKind::PolicyError,
        code: Some(code),
        message: format!("{}: {}", outcome.kind, outcome.message),
        ..outcome
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_differ_by_route_only_where_a_component_differs() {
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
    let panicked = Some(Outcome {
        kind: ErrorKind::PolicyError,
        code: Some(10),
        message: "panic in the admission handler: the fixture panics".into(),
        details: Vec::new(),
    });
    // Two packages, checked one after the other: their outcomes from a native plugin and
    // from a component.
    let cases = [
        (
            ["hang", "allow/a"],
            [late.clone(), None],
            [late.clone(), None],
        ),
        // WASI 0.2 has no exit codes.
        (
            ["exit/7", "allow/a"],
            [crash("exit status 7"), crash("exit status 7")],
            [crash("exit status 1"), crash("exit status 1")],
        ),
        // A component does not unwind: it reports its panic and traps.
        (
            ["panic", "allow/a"],
            [panicked.clone(), None],
            [panicked.clone(), trap.clone()],
        ),
    ];
    guarded(async {
        let host = host();
        for (actions, native, component) in &cases {
            for route in ROUTES {
                let expected = match route {
                    Route::Native(_) | Route::Forwarded(PolicyKind::Command, _) => native,
                    Route::Component | Route::Forwarded(PolicyKind::Component, _) => component,
                };
                let expected = match route {
                    Route::Forwarded(..) => expected.clone().map(forwarded),
                    Route::Native(_) | Route::Component => expected.clone(),
                };
                let source = route.source("conformance-fixture", &["--timeout", "500ms"]);
                let plugin_options = match route {
                    // The timeout of `admit` must expire first.
                    Route::Forwarded(..) => PluginOptions::default(),
                    Route::Native(_) | Route::Component => {
                        PluginOptions::default().check_timeout(Duration::from_millis(500))
                    }
                };
                let plugin = host.plugin_with_options(source, plugin_options);
                let mut outcomes = Vec::new();
                for action in actions {
                    outcomes.push(outcome(&plugin.check_admission(&pin(action))).await);
                }
                plugin.close(GRACE).await;
                assert_eq!(outcomes, expected, "{actions:?} by {route:?}");
            }
        }
    })
    .await;
}
