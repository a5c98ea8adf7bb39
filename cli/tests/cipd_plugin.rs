//! `admit cipd-plugin`, compared with the plugin to which it forwards checks.
//!
//! The client is our own host. It gets the same outcomes from both, over either wire.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests create files, and panic on errors"
)]

mod checks;
mod demo;
mod ends;
mod failures;
mod forwarding;
mod logging;
mod routes;
