//! `admit cipd-plugin` as a plugin of a client, beside the plugin that it has judge.
//!
//! Here the client is our own host, which is told the same as it would be by the plugin
//! itself, over either wire.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test makes its own files, and fails where anything is amiss"
)]

mod demo;
mod ends;
mod failures;
mod five_ways;
mod judging;
mod logging;
mod relay;
