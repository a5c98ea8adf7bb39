//! Peers on the gRPC wire, implemented with tonic from the schema. They share no code with the
//! host and the SDK, and behave on the wire as the reference does.

pub mod host;
