//! Generates the messages and services of the `.proto` files in `proto/schema`.
//!
//! The generated code is committed: a build of a plugin or a host needs neither the parser of the
//! schema, protox, nor the code generators.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use sha2::{Digest as _, Sha256};

/// Where the services find the messages.
const MESSAGES: &str = "::admission_proto::wire";

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
    checksums(&package, &schema)?;
    messages(&package, schema.clone())?;
    services(&package.join("grpc"), &schema)
}

/// Writes the checksums of the files of the schema, in the format of `sha256sum`. A test compares
/// them with the files: it fails if the schema has changed and the generated code has not.
fn checksums(package: &Path, schema: &FileDescriptorSet) -> anyhow::Result<()> {
    let mut files: Vec<_> = schema.file.iter().map(|file| file.name()).collect();
    // The messages of this package come with prost.
    files.retain(|file| !file.starts_with("google/protobuf/"));
    files.sort_unstable();
    let mut sums = String::new();
    for file in files {
        let path = package.join("schema").join(file);
        let source = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let digest = Sha256::digest(source);
        let sum: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        sums += &format!("{sum}  schema/{file}\n");
    }
    write(&package.join("src/generated/SHA256SUMS"), sums.as_bytes())
}

fn messages(package: &Path, schema: FileDescriptorSet) -> anyhow::Result<()> {
    prost_build::Config::new()
        .out_dir(package.join("src/generated"))
        .include_file("wire.rs")
        .compile_fds(schema)
        .context("cannot generate the messages")
}

/// Generates the clients and the servers, each in a folder: the generator names the file after the
/// package of the schema.
fn services(package: &Path, schema: &FileDescriptorSet) -> anyhow::Result<()> {
    for (folder, client) in [("client", true), ("server", false)] {
        tonic_prost_build::configure()
            .out_dir(package.join("src/generated").join(folder))
            .build_client(client)
            .build_server(!client)
            .build_transport(false)
            .codec_path("crate::codec::SmallBufferCodec")
            .extern_path(".admission.stdio", format!("{MESSAGES}::stdio"))
            .extern_path(".cipd.plugin", format!("{MESSAGES}::plugin"))
            .extern_path(".cipd", format!("{MESSAGES}::cipd"))
            .extern_path(".google.rpc", format!("{MESSAGES}::rpc"))
            .compile_fds(schema.clone())
            .with_context(|| format!("cannot generate the {folder}s"))?;
    }
    Ok(())
}

fn write(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))
}
