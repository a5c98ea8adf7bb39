//! Plugins on the gRPC wire, run as a peer that shares no code with the host or the SDK.
//! Tests only what differs from the stdio wire.

/// Declares tests that run in a multi-threaded runtime and have a time limit.
macro_rules! tests {
    ($(async fn $name:ident() $body:block)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            conformance::guarded(async $body).await;
        }
    )*};
}

mod authentication;
mod calls;
mod ends;
mod peer;
mod server;

pub(crate) use peer::{handshake, peer, report};
