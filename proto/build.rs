//! Generates the messages from `schema/`; protox parses them, so no `protoc` is needed.

use std::error::Error;

const SCHEMA: &str = "schema";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SCHEMA}");
    let files = protox::compile(["admission/stdio.proto"], [SCHEMA])?;
    prost_build::Config::new()
        .include_file("wire.rs")
        .compile_fds(files)?;
    Ok(())
}
