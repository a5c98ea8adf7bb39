//! Plugins built with the SDK, under a host that speaks gRPC as the reference does.

use std::time::Instant;

use conformance::guarded;
use conformance::modes::native;
use conformance::peer::host::{Behaviour, PeerHost};

const FAILED_PRECONDITION: i32 = 9;

fn fixture() -> [std::path::PathBuf; 1] {
    [native("conformance-fixture")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_are_admitted_and_denied() {
    guarded(async {
        let host = PeerHost::start();
        let mut plugin = host.launch(fixture(), Behaviour::default()).await;
        plugin.connected().await;
        plugin.ask("1", "allow").await;
        assert_eq!(plugin.verdict().await, ("1".into(), 0, String::new()));
        plugin.ask("2", "deny").await;
        let denied = ("2".into(), FAILED_PRECONDITION, "deny is denied".into());
        assert_eq!(plugin.verdict().await, denied);
        let (exit, stderr) = plugin.close().await;
        assert!(exit.success() && stderr.is_empty(), "{exit}, {stderr:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore]
async fn bench() {
    let host = PeerHost::start();
    for n in [1000, 10_000, 100_000] {
        let start = Instant::now();
        let mut plugin = host.launch(fixture(), Behaviour::default()).await;
        for i in 0..n {
            plugin.ask(&format!("{i:043}"), "allow/some/package").await;
        }
        plugin.connected().await;
        plugin.verdict().await;
        let first = start.elapsed();
        for _ in 1..n {
            plugin.verdict().await;
        }
        let all = start.elapsed();
        println!(
            "{n}: first {first:?}, {:.0}/s",
            f64::from(n) / all.as_secs_f64()
        );
        println!("{:?}", plugin.close().await);
    }
}
