//! The engine that compiles and runs all components of the process, and its clock.

use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::{Config, Engine, OptLevel, WasmBacktraceDetails};

use crate::transport::LaunchError;

/// How often a computing guest yields to the session that polls it. Short enough that
/// a frame or a close is not delayed noticeably, long enough to cost nothing.
const TICK: Duration = Duration::from_millis(5);

static ENGINE: LazyLock<Result<Engine, String>> =
    LazyLock::new(|| Engine::new(&config()).map_err(|error| format!("{error:#}")));

/// Returns the engine of the process.
///
/// # Errors
///
/// When this machine cannot run what the compiler makes.
pub(super) fn engine() -> Result<&'static Engine, LaunchError> {
    ENGINE.as_ref().map_err(|words| {
        LaunchError::Component(format!("this machine cannot run components: {words}"))
    })
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        // Guests are single tasks: calls get cheaper without the bookkeeping for more.
        .concurrency_support(false)
        // What no guest needs, so that its bugs are not ours. (The component model's
        // own async is not even compiled in.)
        .gc_support(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .wasm_threads(false)
        .wasm_memory64(false)
        .wasm_tail_call(false)
        .wasm_relaxed_simd(false)
        // A trap shows its functions' names. Their lines would need the debug
        // information, and an environment variable would switch that on.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // Only a native unwinder would read it, and each component would register its own.
        .native_unwind_info(false);
    config
}

/// Keeps the epochs of the engine ticking while it lives.
pub(super) struct Ticker {
    /// Dropping it ends the thread at once.
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Returns the ticker of the process, starting it for the first component.
    ///
    /// # Errors
    ///
    /// When the system starts no more threads.
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
            // Joined, so that after the last close no thread is left. It wakes at once;
            // and it cannot panic, so there is no error to tell of.
            let _ = thread.join();
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
