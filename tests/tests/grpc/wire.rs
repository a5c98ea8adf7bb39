//! What else goes through the three streams and the port.

use conformance::logs::Lines;
use conformance::{GRACE, Plugin, guarded, host, pin};
use tracing::Level;

use crate::calls::tests;
use crate::peer;

tests! {
    async fn stdout_is_logged_line_by_line() {
        let lines = Lines::collect();
        let plugin = host().plugin(peer("stdout"));
        plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        plugin.close(GRACE).await;
        let said: Vec<_> = lines
            .of_plugin("stdout")
            .into_iter()
            .filter(|line| line.level == Level::INFO)
            .map(|line| line.message)
            .collect();
        assert_eq!(said, ["a line of stdout", r"and another, \u{1b}[31mred", "without an end"]);
    }

    async fn connections_without_a_ticket_are_ended_and_disturb_nobody() {
        let plugin = host().plugin(peer("strangers"));
        plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        plugin.close(GRACE).await;
    }
}
