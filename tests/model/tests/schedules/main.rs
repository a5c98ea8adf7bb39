//! The promise cache in every order in which threads can use it.
//!
//! The sources of the host that lock anything for a check are compiled here with loom's
//! locks instead of the standard library's, without the rest of the host, whose runtimes
//! loom cannot run. Each test runs its threads in every order up to a number of
//! preemptions; who would wait for ever is found as a deadlock. What a test returns from
//! each order is collected, and the set compared, so no test passes because an order that
//! it means to try does not occur.
//!
//! `LOOM_MAX_PREEMPTIONS=3 cargo test -p model` goes deeper than the 2 preemptions that are
//! the default, and takes ten times as long. `LOOM_LOG=trace` and `LOOM_LOCATION=1` show the
//! order that fails.

mod closing;
mod error;
mod explore;
mod plugin;
mod promises;
mod repository;
mod scene;
#[path = "../../../../host/src/sync.rs"]
mod sync;
mod verdicts;
mod waker;
