//! What one plugin may have at once.

use conformance::{GRACE, Plugin, guarded, host};

use crate::calls::tests;
use crate::{peer, told};

tests! {
    async fn messages_that_are_under_way_take_64_mib_together() {
        let plugin = Plugin::new(&host(), peer("long-calls"));
        assert_eq!(
            told(&plugin).await,
            "ResourceExhausted the calls that are under way take too much memory; OK"
        );
        plugin.close(GRACE).await;
    }

    async fn a_plugin_may_have_64_connections() {
        let plugin = Plugin::new(&host(), peer("many-connections"));
        assert_eq!(
            told(&plugin).await,
            "ResourceExhausted too many connections with this ticket; OK"
        );
        plugin.close(GRACE).await;
    }
}
