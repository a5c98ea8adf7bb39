//! Metadata calls, under a host that behaves like the reference.

use std::sync::Arc;

use admission_proto::wire::cipd::InstanceMetadata;
use admission_proto::wire::plugin::{ListMetadataRequest, ListMetadataResponse};
use admission_proto::wire::{Any, Message as _, rpc};
use conformance::guarded;
use conformance::peer::host::{Behaviour, Event, Plugin, SERVICE_URL, admission};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::{FAILED_PRECONDITION, close, fixture, policy, verdict};

const CANCELLED: i32 = 1;
const PERMISSION_DENIED: i32 = 7;

pub(crate) fn entry(key: impl Into<String>, value: impl Into<Vec<u8>>) -> InstanceMetadata {
    InstanceMetadata {
        key: key.into(),
        value: value.into(),
        ..InstanceMetadata::default()
    }
}

/// Replies to each call with the result of `page`.
fn answering(
    page: impl Fn(ListMetadataRequest) -> Result<ListMetadataResponse, Status> + Send + Sync + 'static,
) -> Behaviour {
    Behaviour {
        metadata: Arc::new(move |request| Box::pin(std::future::ready(page(request)))),
        ..Behaviour::default()
    }
}

/// Replies to each call with this page.
pub(crate) fn page(metadata: Vec<InstanceMetadata>, next: &str) -> Behaviour {
    let page = ListMetadataResponse {
        metadata,
        next_page_token: next.to_owned(),
    };
    answering(move |_| Ok(page.clone()))
}

/// Waits for a metadata call.
pub(crate) async fn listed(plugin: &mut Plugin) -> ListMetadataRequest {
    match plugin.event().await {
        Event::Listed(request) => request,
        other => panic!("{other:?} is not a metadata call"),
    }
}

#[tokio::test]
async fn metadata_is_visited_page_by_page() {
    guarded(async {
        let behaviour = answering(|request| {
            let start = request.page_token.parse().unwrap_or(0);
            let end = 15.min(start + request.page_size);
            Ok(ListMetadataResponse {
                metadata: (start..end).map(|n| entry(format!("k{n}"), "v")).collect(),
                next_page_token: if end < 15 {
                    end.to_string()
                } else {
                    String::new()
                },
            })
        });
        let (_host, mut plugin) = fixture(behaviour).await;
        plugin.ask("1", "visit-all/7").await;
        for token in ["", "7", "14"] {
            let request = listed(&mut plugin).await;
            let asked = admission("1", SERVICE_URL, "visit-all/7");
            assert_eq!(request.service_url, asked.service_url);
            assert_eq!(request.package, asked.package);
            assert_eq!(request.instance, asked.instance);
            assert!(request.keys.is_empty());
            assert_eq!((request.page_size, &request.page_token[..]), (7, token));
        }
        let keys: Vec<String> = (0..15).map(|n| format!("k{n}")).collect();
        let all = verdict("1", FAILED_PRECONDITION, &keys.join(" "));
        assert_eq!(plugin.verdict().await, all);
        close(plugin).await;
    })
    .await;
}

#[tokio::test]
async fn eight_mebibytes_in_one_page_arrive() {
    guarded(async {
        let entries = (0..16).map(|n| entry(format!("k{n}"), vec![n; 512 << 10]));
        let (_host, mut plugin) = fixture(page(entries.collect(), "")).await;
        plugin.ask("1", "visit-all/20").await;
        listed(&mut plugin).await;
        let keys: Vec<String> = (0..16).map(|n| format!("k{n}")).collect();
        let all = verdict("1", FAILED_PRECONDITION, &keys.join(" "));
        assert_eq!(plugin.verdict().await, all);
        close(plugin).await;
    })
    .await;
}

#[tokio::test]
async fn the_status_of_a_failed_call_is_unchanged_with_its_details() {
    guarded(async {
        let status = rpc::Status {
            code: PERMISSION_DENIED,
            message: "not yours: \u{fc}\n".into(),
            details: vec![Any {
                type_url: "type.example.com/detail".into(),
                value: vec![0, 255],
            }],
        };
        let sent = Status::with_details(
            Code::PermissionDenied,
            status.message.clone(),
            status.encode_to_vec().into(),
        );
        let (_host, mut plugin) = fixture(answering(move |_| Err(sent.clone()))).await;
        plugin.ask("1", "metadata").await;
        listed(&mut plugin).await;
        let Event::Resolved(request) = plugin.event().await else {
            panic!("the next event is a verdict");
        };
        assert_eq!(request.status, Some(status));
        close(plugin).await;
    })
    .await;
}

#[tokio::test]
async fn a_host_without_a_repository_fails_the_check() {
    guarded(async {
        let (_host, mut plugin) = fixture(Behaviour::default()).await;
        plugin.ask("1", "metadata").await;
        listed(&mut plugin).await;
        let text = "a RepositoryClient implementation is not provided";
        assert_eq!(plugin.verdict().await, verdict("1", 12, text));
        close(plugin).await;
    })
    .await;
}

#[tokio::test]
async fn at_most_eight_metadata_calls_are_in_flight_and_do_not_delay_other_checks() {
    guarded(async {
        let stuck = Behaviour {
            metadata: Arc::new(|_| Box::pin(std::future::pending())),
            ..Behaviour::default()
        };
        let (_host, mut plugin) = fixture(stuck).await;
        for n in 0..20 {
            plugin.ask(&n.to_string(), "metadata").await;
        }
        for _ in 0..8 {
            listed(&mut plugin).await;
        }
        plugin.ask("other", "allow").await;
        // A ninth call in flight would arrive first.
        assert_eq!(plugin.verdict().await, verdict("other", 0, ""));
        plugin.end_stdin();
        // Handlers may see the failure before their futures are dropped.
        let (exit, stderr) = plugin.exit().await;
        assert!(exit.success() && stderr.is_empty(), "{exit}, {stderr:?}");
        plugin.revoke();
        while let Some(event) = plugin.remaining_event().await {
            let Event::Resolved(verdict) = event else {
                panic!("{event:?} was not expected");
            };
            assert_eq!(verdict.status.expect("it has one").code, CANCELLED);
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_in_flight_is_cancelled_when_its_check_is_settled() {
    guarded(async {
        /// Notifies the test when the call is dropped.
        struct Call(mpsc::Sender<()>);

        impl Drop for Call {
            fn drop(&mut self) {
                // There is room for the one call of this test.
                let _ = self.0.try_send(());
            }
        }

        let (dropped, mut drops) = mpsc::channel(1);
        let behaviour = Behaviour {
            metadata: Arc::new(move |request| {
                let call = (request.keys == ["stuck"]).then(|| Call(dropped.clone()));
                Box::pin(async move {
                    if call.is_some() {
                        std::future::pending::<()>().await;
                    }
                    Ok(ListMetadataResponse::default())
                })
            }),
            ..Behaviour::default()
        };
        let (_host, mut plugin) = fixture(behaviour).await;
        plugin.ask("1", "abandon").await;
        while !matches!(plugin.event().await, Event::Resolved(_)) {}
        assert_eq!(drops.recv().await, Some(()));
        close(plugin).await;
    })
    .await;
}

#[tokio::test]
async fn the_example_policy_admits_what_its_metadata_allows() {
    guarded(async {
        let digest = "ab".repeat(32);
        let entries = vec![
            entry("allowed-sha256", "other"),
            entry("allowed-sha256", digest),
        ];
        let (_host, mut plugin) = policy(page(entries, "")).await;
        plugin.ask("1", "tools/a").await;
        assert_eq!(listed(&mut plugin).await.keys, ["allowed-sha256"]);
        assert_eq!(plugin.verdict().await, verdict("1", 0, ""));
        plugin.ask("2", "experimental/a").await;
        let text = "experimental packages are not deployed";
        assert_eq!(
            plugin.verdict().await,
            verdict("2", FAILED_PRECONDITION, text)
        );
        close(plugin).await;
    })
    .await;
}
