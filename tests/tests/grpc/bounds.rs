//! What one plugin may have at once.

use conformance::{GRACE, Plugin, guarded, host};

use crate::calls::tests;
use crate::{peer, told};

tests! {
    async fn a_call_has_one_message_whatever_follows_it() {
        let plugin = host().plugin(peer("second-message"));
        let refused = "Internal the call has more than one message";
        assert_eq!(told(&plugin).await, format!("{refused}; {refused}; OK"));
        plugin.close(GRACE).await;
    }

    async fn messages_that_are_under_way_take_64_mib_together() {
        let plugin = host().plugin(peer("long-calls"));
        assert_eq!(
            told(&plugin).await,
            "ResourceExhausted the calls that are under way take too much memory; OK"
        );
        plugin.close(GRACE).await;
    }

    async fn a_connection_that_is_in_the_way_is_cut_however_busy_it_is() {
        let plugin = host().plugin(peer("flooding-stranger"));
        assert_eq!(told(&plugin).await, "sent away");
        plugin.close(GRACE).await;
    }

    async fn a_plugin_may_have_64_connections() {
        let plugin = host().plugin(peer("many-connections"));
        assert_eq!(
            told(&plugin).await,
            "ResourceExhausted too many connections with this ticket; OK"
        );
        plugin.close(GRACE).await;
    }
}
