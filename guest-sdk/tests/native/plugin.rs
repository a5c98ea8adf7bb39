//! The program that `main.rs` beside it drives.

#[cfg(not(target_arch = "wasm32"))]
mod modes;

#[cfg(not(target_arch = "wasm32"))]
fn main() -> Result<(), admission_sdk::RunError> {
    modes::main()
}

/// A component has no process to drive; this is here so that the package builds.
#[cfg(target_arch = "wasm32")]
fn main() {}
