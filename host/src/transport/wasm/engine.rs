//! The engine that compiles and runs all components of the process, and its epoch ticker.

use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::{Config, Engine, OptLevel, WasmBacktraceDetails};

use crate::transport::LaunchError;

/// How often a computing guest yields to the session that polls it. Short enough not to delay
/// a frame or a close noticeably, long enough to cost nothing.
const TICK: Duration = Duration::from_millis(5);

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

/// Increments the engine's epoch every [`TICK`] until it is dropped.
pub(super) struct Ticker {
    /// Dropping it wakes the thread, which then exits.
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Returns the ticker of the process. Starts it for the first component.
    ///
    /// # Errors
    ///
    /// If the system starts no more threads.
    pub(super) fn acquire(engine: &Engine) -> Result<Arc<Self>, LaunchError> {
        static SHARED: Mutex<Weak<Ticker>> = Mutex::new(Weak::new());

        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ticker) = shared.upgrade() {
            return Ok(ticker);
        }
        let ticker = Arc::new(Self::start(engine)?);
        *shared = Arc::downgrade(&ticker);
        Ok(ticker)
    }

    fn start(engine: &Engine) -> Result<Self, LaunchError> {
        let (stop, stopped) = mpsc::sync_channel(0);
        let engine = engine.weak();
        let thread = thread::Builder::new()
            .name("epoch-ticker".into())
            .spawn(move || {
                while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                    let Some(engine) = engine.upgrade() else {
                        return;
                    };
                    engine.increment_epoch();
                }
            })
            .map_err(|source| LaunchError::Spawn {
                words: format!("cannot start the thread of the epoch ticker: {source}"),
                source,
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Joined, so that no thread is left after the last close. The thread exits at once
            // and cannot panic.
            let _never_panics = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_share_one_ticker() {
        let engine = engine().unwrap();
        let one = Ticker::acquire(engine).unwrap();
        let other = Ticker::acquire(engine).unwrap();
        assert!(Arc::ptr_eq(&one, &other));
    }
}
