//! Plugins on the reference's wire, as a peer speaks it that shares no code with the host
//! or the SDK: what is different there from frames.

mod bounds;
mod calls;
mod ends;
mod peer;
mod server;
mod wire;

pub(crate) use peer::{peer, told};
