//! Builds the plugins that the tests run as components. As programs they are binaries of this
//! package.
#![allow(
    clippy::disallowed_methods,
    reason = "cargo passes its input to build scripts in the environment"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-wasip2";

/// Packages with one binary each, of the same name.
const PLUGINS: [&str; 2] = ["conformance-fixture", "wasm-policy"];

/// The sources of the plugins, relative to the workspace.
const SOURCES: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "proto/Cargo.toml",
    "proto/src",
    "guest-sdk/Cargo.toml",
    "guest-sdk/src",
    "examples/wasm-policy/Cargo.toml",
    "examples/wasm-policy/src",
    "tests/fixture",
];

fn main() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for source in SOURCES {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(source).display()
        );
    }
    // The outer build holds the lock of the shared target folder.
    let folder = PathBuf::from(variable("OUT_DIR")).join("plugins");
    build(&workspace, &folder);
    let plugins = folder.join(TARGET).join("release");
    println!("cargo::rustc-env=COMPONENTS={}", plugins.display());
}

fn build(workspace: &Path, folder: &Path) {
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .current_dir(workspace)
        .args(["build", "--release", "--locked"]);
    cargo
        .arg("--target-dir")
        .arg(folder)
        .args(["--target", TARGET]);
    if variable("PROFILE") == "debug" {
        // A debug build of the host compiles components slowly, so these are small.
        cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s");
        cargo.env("CARGO_PROFILE_RELEASE_LTO", "fat");
    }
    for plugin in PLUGINS {
        cargo.args(["--package", plugin]);
    }
    // These are meant for the outer build.
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "CARGO_TARGET_DIR",
    ] {
        cargo.env_remove(name);
    }
    let status = cargo
        .status()
        .expect("cargo can be run, since it runs this program");
    assert!(
        status.success(),
        "building the plugins for {TARGET} failed; if that target is missing, `cargo xtask test` \
         or `rustup target add {TARGET}` adds it"
    );
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
