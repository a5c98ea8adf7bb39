//! The compilation target of components.

use std::env;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::cargo;

/// The target of WASI 0.2 components.
pub(crate) const WASM_TARGET: &str = "wasm32-wasip2";

/// Adds [`WASM_TARGET`] to the toolchain unless it is installed.
///
/// # Errors
///
/// If it is not installed and rustup cannot add it.
pub(crate) fn ensure() -> anyhow::Result<()> {
    if is_installed()? {
        return Ok(());
    }
    eprintln!("adding the target {WASM_TARGET}");
    let add = ["target", "add", WASM_TARGET];
    cargo::run(Command::new("rustup").args(add)).with_context(|| {
        format!(
            "the Rust toolchain lacks the target {WASM_TARGET}: run `rustup target add \
             {WASM_TARGET}`, or install it from your distribution"
        )
    })?;
    if !is_installed()? {
        bail!("rustup added {WASM_TARGET} to another toolchain than the one in use");
    }
    Ok(())
}

fn is_installed() -> anyhow::Result<bool> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--print", "target-libdir", "--target", WASM_TARGET]);
    let folder = cargo::output(&mut rustc)?;
    let folder = String::from_utf8(folder).context("the output of rustc is not UTF-8")?;
    // An interrupted download may leave an empty folder.
    let mut entries = std::fs::read_dir(folder.trim_end())
        .into_iter()
        .flatten()
        .flatten();
    Ok(entries.any(|entry| entry.path().extension() == Some("rlib".as_ref())))
}
