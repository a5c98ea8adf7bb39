//! The services that admission plugins and their hosts have for each other on the wire of
//! the reference, as tonic generates them.
//!
//! Their messages are those of [`admission_proto::wire::plugin`]. What a call must carry and
//! how each ends is the business of host and plugin.

#[cfg(any(feature = "client", feature = "server"))]
mod codec;

mod generated {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::allow_attributes_without_reason,
        clippy::missing_errors_doc,
        reason = "generated; the documentation stands in the schema"
    )]
    include!(concat!(env!("OUT_DIR"), "/cipd.plugin.rs"));
}

#[cfg(feature = "client")]
pub use generated::{admissions_client, host_client};
#[cfg(feature = "server")]
pub use generated::{admissions_server, host_server};

/// The key of the metadata in which each call carries the ticket of its plugin.
pub const TICKET: &str = "x-plugin-ticket";
