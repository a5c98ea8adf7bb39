//! Generates the services from the schema of `admission-proto`, for the messages of that crate.

use std::error::Error;

use admission_proto::wire::{Message as _, SCHEMA};
use prost_types::FileDescriptorSet;

const MESSAGES: &str = "::admission_proto::wire";

fn main() -> Result<(), Box<dyn Error>> {
    tonic_prost_build::configure()
        .build_client(cfg!(feature = "client"))
        .build_server(cfg!(feature = "server"))
        .build_transport(false)
        .codec_path("crate::codec::SmallBufferCodec")
        .extern_path(".admission.stdio", format!("{MESSAGES}::stdio"))
        .extern_path(".cipd.plugin", format!("{MESSAGES}::plugin"))
        .extern_path(".cipd", format!("{MESSAGES}::cipd"))
        .extern_path(".google.rpc", format!("{MESSAGES}::rpc"))
        .compile_fds(FileDescriptorSet::decode(SCHEMA)?)?;
    Ok(())
}
