//! Tests of the host and of the SDK, in one program: each program would link wasmtime again.

mod cache;
mod closing;
mod conformance_page;
mod containment;
mod events;
mod grpc;
mod guard;
mod layers;
mod load;
mod logging;
mod metadata;
mod modes;
mod native;
mod policy;
mod reference;
mod sandbox;
mod sdk_grpc;
mod sdk_stdio;
mod service;
mod service_access;
mod uncached;
mod wire;
