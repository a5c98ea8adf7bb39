//! Peers of the gRPC wire, written straight on tonic from the schema: they share no code
//! with the host and the SDK, and behave on the wire as the reference does.

pub mod host;
