//! A WASI component as a plugin: compiled here, run in this process, in a sandbox.
//!
//! It gets its stdio, the clocks and random numbers; no files, no environment, no
//! network. Memory and CPU time are limited while it runs. Compiling is not: a hostile
//! component of the permitted size can make it slow.

mod cache;
mod cpu;
mod engine;
mod imports;
mod instance;
mod limits;
mod outcome;
mod pipe;
mod sandbox;
mod source;
mod stdio;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use wasmtime::Engine;
use wasmtime::component::Component as Compiled;
use wasmtime_wasi::p2::bindings::CommandPre;

use self::cache::Cache;
use self::instance::Allowance;
use self::sandbox::Guest;
use self::source::Source;
use super::stderr::StderrLog;
use super::{LaunchError, Launched, Launcher};

/// Linear memory of a component that sets no other limit, in bytes.
const DEFAULT_MEMORY_LIMIT: u64 = 64 << 20;

/// CPU time without a yield to the host of a component that sets no other limit.
const DEFAULT_CPU_LIMIT: Duration = Duration::from_secs(10);

/// A component of WASI 0.2, to be run as a plugin in this process.
///
/// It is granted nothing: it finds no file, no environment and no network.
///
/// It runs on the runtime of the host, and while it computes it occupies one of that
/// runtime's threads, for about 10 milliseconds at a time. Where other tasks must not
/// wait for that, give the host a runtime of its own.
#[derive(Debug, Clone)]
pub struct Component {
    source: Source,
    name: Arc<str>,
    allowance: Allowance,
}

impl Component {
    /// Takes the component in a file, which is read when the plugin starts. The plugin
    /// is named after the file.
    #[must_use]
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_stem().map_or_else(
            || path.display().to_string(),
            |stem| stem.to_string_lossy().into_owned(),
        );
        Self::new(Source::File(path), &name)
    }

    /// Takes a component that is in memory. The plugin is named `component`.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Source::Memory(bytes.into().into()), "component")
    }

    /// Sets how much linear memory it may have, in bytes: all its memories together,
    /// 64 MiB by default. Asking for more ends the plugin.
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.allowance.memory = bytes;
        self
    }

    /// Sets how much CPU time it may use without a yield to the host, that is without
    /// waiting and without moving a byte: 10 seconds by default. Using more ends the
    /// plugin.
    #[must_use]
    pub fn cpu_limit(mut self, time: Duration) -> Self {
        self.allowance.cpu = time;
        self
    }

    /// Returns the name of the plugin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn new(source: Source, name: &str) -> Self {
        Self {
            source,
            name: name.into(),
            allowance: Allowance {
                memory: DEFAULT_MEMORY_LIMIT,
                cpu: DEFAULT_CPU_LIMIT,
            },
        }
    }
}

/// Starts components.
pub(crate) struct WasmLauncher {
    component: Component,
    cache: Option<PathBuf>,
    runtime: Handle,
}

impl WasmLauncher {
    /// Takes the component to start, the folder for compiled code, and the runtime on
    /// whose blocking threads it is compiled.
    pub(crate) fn new(component: Component, cache: Option<PathBuf>, runtime: Handle) -> Self {
        Self {
            component,
            cache,
            runtime,
        }
    }
}

impl Launcher for WasmLauncher {
    fn launch(
        &self,
        stderr: StderrLog,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<Launched, LaunchError>> {
        let component = self.component.clone();
        let cache = self.cache.clone();
        let runtime = self.runtime.clone();
        Box::pin(async move {
            let engine = engine::engine()?;
            let allowance = component.allowance;
            // A compilation cannot be cancelled: when nobody waits for it, it goes on to
            // its end, and its result is dropped.
            let preparing = runtime.spawn_blocking(move || prepare(engine, &component, cache));
            let prepared = cancel.run_until_cancelled(preparing).await;
            let command = match prepared.ok_or(LaunchError::Cancelled)? {
                Ok(command) => command?,
                Err(error) if error.is_cancelled() => return Err(LaunchError::HostClosed),
                Err(error) => {
                    let words = format!("the compiler did not survive the component: {error}");
                    return Err(LaunchError::Component(words));
                }
            };
            instance::start(engine, command, allowance, stderr)
        })
    }
}

/// Does all that can be done, and refused, before any code of the component runs.
fn prepare(
    engine: &Engine,
    component: &Component,
    cache: Option<PathBuf>,
) -> Result<CommandPre<Guest>, LaunchError> {
    let bytes = component.source.read()?;
    let compiled = compiled(engine, &bytes, component, cache)?;
    let names = imports::unknown_imports(engine, &compiled);
    if !names.is_empty() {
        return Err(LaunchError::Imports { names });
    }
    if !imports::exports_run(engine, &compiled) {
        let words = "the component does not export `wasi:cli/run` of WASI 0.2, \
                     build it as a command";
        return Err(LaunchError::Component(words.into()));
    }
    // The interfaces are known by now, so what differs is something inside of one.
    sandbox::link(engine, &compiled).map_err(|error| LaunchError::Imports {
        names: vec![outcome::one_line(&error)],
    })
}

fn compiled(
    engine: &Engine,
    bytes: &[u8],
    component: &Component,
    cache: Option<PathBuf>,
) -> Result<Compiled, LaunchError> {
    let began = Instant::now();
    let cache = cache.and_then(|folder| Cache::open(folder, &component.name));
    if let Some(compiled) = cache.as_ref().and_then(|cache| cache.load(engine, bytes)) {
        tracing::debug!(
            plugin = &*component.name,
            elapsed = ?began.elapsed(),
            "loaded the compiled component from the cache"
        );
        return Ok(compiled);
    }

    let compiled = Compiled::from_binary(engine, bytes).map_err(|error| {
        let words = outcome::one_line(&error);
        LaunchError::Component(format!("the component cannot be compiled: {words}"))
    })?;
    tracing::debug!(
        plugin = &*component.name,
        elapsed = ?began.elapsed(),
        "compiled the component"
    );
    if let Some(cache) = cache {
        cache.store(engine, bytes, &compiled);
    }
    Ok(compiled)
}

#[cfg(test)]
mod tests;
