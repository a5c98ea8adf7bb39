//! The engine that compiles and runs all components of the process.

use std::sync::LazyLock;

use wasmtime::{Config, Engine, OptLevel, WasmBacktraceDetails};

use crate::transport::LaunchError;

static ENGINE: LazyLock<Result<Engine, String>> =
    LazyLock::new(|| Engine::new(&config()).map_err(|error| format!("{error:#}")));

/// Returns the engine of the process.
///
/// # Errors
///
/// If this machine cannot run the code of the compiler.
pub(super) fn engine() -> Result<&'static Engine, LaunchError> {
    ENGINE.as_ref().map_err(|text| {
        LaunchError::Component(format!("this machine cannot run components: {text}"))
    })
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        // A guest is one task, and calls are cheaper without the bookkeeping for several.
        .concurrency_support(false)
        // Components do not need these, and each may have bugs. The async part of the component
        // model is not compiled in.
        .gc_support(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .wasm_threads(false)
        .wasm_memory64(false)
        .wasm_tail_call(false)
        .wasm_relaxed_simd(false)
        // A backtrace shows names of functions. Lines would need debug information, which an
        // environment variable could switch on.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // Only native unwinders use this information, and each component would register its own.
        .native_unwind_info(false);
    config
}
