//! Who names no guard is told so. One test, as it is about the whole process.

use conformance::logs::Lines;
use conformance::{GRACE, Mode, Plugin, guarded, host, pin};

#[tokio::test]
async fn plugins_without_a_guard_are_warned_of_once() {
    guarded(async {
        let lines = Lines::collect();
        let warnings = || {
            let of_the_host = lines.of_plugin("").into_iter();
            of_the_host
                .filter(|line| line.message.starts_with("no guard was configured"))
                .count()
        };
        assert_eq!(warnings(), 0);
        for host in [host(), host()] {
            for _ in 0..2 {
                let plugin = Plugin::new(&host, Mode::Native.fixture(""));
                let promise = plugin.check_admission(&pin("allow/a"));
                promise.wait().await.expect("admitted");
                plugin.close(GRACE).await;
            }
        }
        assert_eq!(warnings(), 1);
    })
    .await;
}
