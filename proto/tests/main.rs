//! Tests of the messages, frames and pins.

mod instance_ids;
mod metadata;
mod pins;
mod properties;
mod protocol_page;
mod schema;
