//! The target that components are built for.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

/// The target of WASI 0.2 components.
pub(crate) const WASM_TARGET: &str = "wasm32-wasip2";

/// Makes sure that the toolchain in use can build for [`WASM_TARGET`].
///
/// # Errors
///
/// If it cannot, and rustup cannot change that.
pub(crate) fn ensure() -> anyhow::Result<()> {
    if is_installed()? {
        return Ok(());
    }
    eprintln!("adding the target {WASM_TARGET}");
    let advice = || {
        format!(
            "the Rust toolchain lacks the target {WASM_TARGET}: add it as `rustup target add \
             {WASM_TARGET}` would, or as your distribution packages it"
        )
    };
    let added = Command::new("rustup")
        .args(["target", "add", WASM_TARGET])
        .status()
        .context("cannot run rustup")
        .with_context(advice)?;
    if !added.success() {
        return Err(anyhow::anyhow!("rustup failed: {added}").context(advice()));
    }
    if !is_installed()? {
        bail!("rustup has added {WASM_TARGET} to another toolchain than the one in use");
    }
    Ok(())
}

fn is_installed() -> anyhow::Result<bool> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", WASM_TARGET])
        .output()
        .with_context(|| format!("cannot run {}", rustc.display()))?;
    if !asked.status.success() {
        let words = String::from_utf8_lossy(&asked.stderr);
        bail!("the compiler does not know {WASM_TARGET}: {}", words.trim());
    }
    let folder = String::from_utf8(asked.stdout).context("rustc printed no path")?;
    Ok(has_libraries(Path::new(folder.trim_end())))
}

/// An interrupted download may leave an empty folder behind.
fn has_libraries(folder: &Path) -> bool {
    let Ok(mut entries) = folder.read_dir() else {
        return false;
    };
    entries.any(|entry| entry.is_ok_and(|entry| entry.path().extension() == Some("rlib".as_ref())))
}
