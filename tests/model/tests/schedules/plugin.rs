//! The host's sources, and what every test needs of them.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the host uses more of them than their locks are tested with"
)]

#[path = "../../../../host/src/plugin/checks.rs"]
pub(crate) mod checks;
#[path = "../../../../host/src/plugin/life.rs"]
pub(crate) mod life;
#[path = "../../../../host/src/plugin/origin.rs"]
pub(crate) mod origin;
#[path = "../../../../host/src/plugin/promise.rs"]
pub(crate) mod promise;
#[path = "../../../../host/src/plugin/state.rs"]
pub(crate) mod state;
