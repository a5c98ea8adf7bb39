//! Generates the messages of `schema/`. protox parses the schema, so no `protoc` is needed.
#![expect(
    clippy::disallowed_methods,
    reason = "cargo passes OUT_DIR in the environment"
)]

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use prost::Message as _;

const SCHEMA: &str = "schema";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SCHEMA}");
    let files = protox::compile(["admission/stdio.proto"], [SCHEMA])?;
    let out = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    fs::write(Path::new(&out).join("schema.bin"), files.encode_to_vec())?;
    prost_build::Config::new()
        .include_file("wire.rs")
        .compile_fds(files)?;
    Ok(())
}
