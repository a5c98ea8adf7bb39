//! Generates the messages and services of the `.proto` files in `proto/schema`.
//!
//! The generated code is committed, so that nobody who builds a plugin or a host has to build a
//! parser of `.proto` files and two code generators first. protox is the parser: no `protoc` is
//! needed.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use sha2::{Digest as _, Sha256};

/// Where the services find the messages.
const MESSAGES: &str = "::admission_proto::wire";

/// The files of the schema, in the package of the messages.
const SCHEMA: [&str; 4] = [
    "schema/admission/stdio.proto",
    "schema/cipd/cipd.proto",
    "schema/cipd/plugin.proto",
    "schema/google/rpc/status.proto",
];

/// Generates the code of the workspace in `root`.
///
/// # Errors
///
/// If the schema is invalid, or if a file cannot be read or written.
pub(crate) fn generate(root: &Path) -> anyhow::Result<()> {
    let package = root.join("proto");
    let schema = protox::compile(["admission/stdio.proto"], [package.join("schema")])?;
    // For a test, which reads every field from it.
    write(&package.join("tests/schema.bin"), &schema.encode_to_vec())?;
    messages(&package, schema.clone())?;
    services(&package.join("grpc"), schema)
}

fn messages(package: &Path, schema: FileDescriptorSet) -> anyhow::Result<()> {
    let folder = package.join("src/generated");
    // A test compares the sums with the schema: whoever changes it has to run this again.
    let mut sums = String::new();
    for file in SCHEMA {
        let source = fs::read(package.join(file)).with_context(|| format!("cannot read {file}"))?;
        let sum = Sha256::digest(source);
        let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        sums += &format!("{sum}  {file}\n");
    }
    write(&folder.join("SHA256SUMS"), sums.as_bytes())?;
    prost_build::Config::new()
        .out_dir(folder)
        .include_file("wire.rs")
        .compile_fds(schema)
        .context("cannot generate the messages")
}

fn services(package: &Path, schema: FileDescriptorSet) -> anyhow::Result<()> {
    tonic_prost_build::configure()
        .out_dir(package.join("src/generated"))
        .build_transport(false)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .codec_path("crate::codec::SmallBufferCodec")
        .extern_path(".admission.stdio", format!("{MESSAGES}::stdio"))
        .extern_path(".cipd.plugin", format!("{MESSAGES}::plugin"))
        .extern_path(".cipd", format!("{MESSAGES}::cipd"))
        .extern_path(".google.rpc", format!("{MESSAGES}::rpc"))
        .compile_fds(schema)
        .context("cannot generate the services")
}

fn write(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))
}
