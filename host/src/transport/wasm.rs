//! A component as a plugin: compiled and run in this process, in a sandbox.
//!
//! It gets its stdio, clocks and random numbers; no files, no environment, no network. Its
//! memory and CPU time are limited while it runs. Compiling is not limited: a hostile
//! component of the permitted size can make it slow.

mod cache;
mod cpu;
mod engine;
mod guest;
mod limits;
mod pipe;
mod sandbox;
mod source;
mod stdio;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use admission_proto::escape;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use wasmtime::Engine;
use wasmtime::component::Component as Compiled;
use wasmtime_wasi::p2::bindings::CommandPre;

use self::cache::Cache;
use self::sandbox::GuestState;
use self::source::Source;
use super::stderr::StderrLog;
use super::{LaunchError, Launched, Launcher};

/// Default limit of a component's linear memory, in bytes.
const DEFAULT_MEMORY_LIMIT: u64 = 64 << 20;

/// Default limit of a component's CPU time without a yield to the host.
const DEFAULT_CPU_LIMIT: Duration = Duration::from_secs(10);

/// Longest text of an engine error that is shown, in bytes. It may contain names that the
/// component chose.
const MAX_ERROR_TEXT: usize = 1024;

/// A component of WASI 0.2 that is run as a plugin in this process.
///
/// It has no files, no environment and no network. It runs on the runtime of the host. While it
/// computes, it occupies a thread of that runtime for up to 10 ms at a time. If other tasks
/// cannot wait that long, give the host a runtime of its own.
#[derive(Clone)]
pub struct Component {
    source: Source,
    name: Arc<str>,
    memory_limit: u64,
    cpu_limit: Duration,
    args: Vec<String>,
}

impl Component {
    /// Creates a component from a file, which is read when the plugin starts: at most 64 MiB.
    /// The plugin is named after the file, without its extension.
    ///
    /// A file that cannot be read, or is not a component of WASI 0.2, is an error of the
    /// first check.
    #[must_use]
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_stem().map_or_else(
            || path.display().to_string(),
            |stem| stem.to_string_lossy().into_owned(),
        );
        Self::new(Source::File(path), &name)
    }

    /// Creates a component from bytes in memory, at most 64 MiB. The plugin is named
    /// `component`.
    ///
    /// Bytes that are not a component of WASI 0.2 are an error of the first check.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Source::Memory(bytes.into().into()), "component")
    }

    /// Sets the limit of its linear memory in bytes, for all its memories together. The
    /// default is 64 MiB.
    ///
    /// A component that exceeds the limit is stopped, and its checks fail with
    /// [`ErrorKind::Resource`](crate::ErrorKind::Resource).
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Sets the limit of the CPU time that it uses without a yield to the host, that is, without
    /// waiting, reading or writing. The default is 10 seconds.
    ///
    /// A component that exceeds the limit is stopped, and its checks fail with
    /// [`ErrorKind::Resource`](crate::ErrorKind::Resource).
    #[must_use]
    pub fn cpu_limit(mut self, time: Duration) -> Self {
        self.cpu_limit = time;
        self
    }

    /// Adds an argument. The component finds it after the name of the plugin, and finds no arguments
    /// if none is added.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.args.push(argument.into());
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
            memory_limit: DEFAULT_MEMORY_LIMIT,
            cpu_limit: DEFAULT_CPU_LIMIT,
            args: Vec::new(),
        }
    }
}

/// Shows everything but the source, which may be megabytes.
impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component")
            .field("name", &self.name)
            .field("memory_limit", &self.memory_limit)
            .field("cpu_limit", &self.cpu_limit)
            .field("args", &self.args)
            .finish_non_exhaustive()
    }
}

/// Starts components.
pub(crate) struct WasmLauncher {
    component: Component,
    cache: Option<PathBuf>,
    runtime: Handle,
}

impl WasmLauncher {
    /// Creates a launcher that caches compiled code in the directory `cache`, and compiles on the
    /// blocking threads of `runtime`.
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
            let source = component.clone();
            // A compilation cannot be cancelled: it runs to its end, and its result is
            // dropped.
            let preparing = runtime.spawn_blocking(move || prepare(engine, &source, cache));
            let prepared = cancel.run_until_cancelled(preparing).await;
            let command = match prepared.ok_or(LaunchError::Cancelled)? {
                Ok(command) => command?,
                Err(error) if error.is_cancelled() => return Err(LaunchError::HostClosed),
                Err(error) => {
                    let text = format!("the compiler failed on the component: {error}");
                    return Err(LaunchError::Component(text));
                }
            };
            guest::start(engine, command, &component, stderr)
        })
    }
}

/// Compiles, checks and links the component. Runs none of its code.
fn prepare(
    engine: &Engine,
    component: &Component,
    cache: Option<PathBuf>,
) -> Result<CommandPre<GuestState>, LaunchError> {
    let bytes = component.source.read()?;
    let compiled = compile(engine, &bytes, component, cache)?;
    let names = sandbox::unknown_imports(engine, &compiled);
    if !names.is_empty() {
        return Err(LaunchError::Imports { names });
    }
    if !sandbox::exports_run(engine, &compiled) {
        let text = "the component does not export `wasi:cli/run` of WASI 0.2; \
                     build it as a command";
        return Err(LaunchError::Component(text.into()));
    }
    // All interfaces are known, so the error is about a function or a type of one.
    sandbox::link(engine, &compiled).map_err(|error| LaunchError::Imports {
        names: vec![one_line(&format!("{error:#}"))],
    })
}

/// Compiles the component, or loads it from the cache.
fn compile(
    engine: &Engine,
    bytes: &[u8],
    component: &Component,
    cache: Option<PathBuf>,
) -> Result<Compiled, LaunchError> {
    let started = Instant::now();
    let cache = cache.and_then(|directory| Cache::open(directory, &component.name));
    if let Some(compiled) = cache.as_ref().and_then(|cache| cache.load(engine, bytes)) {
        tracing::debug!(
            plugin = &*component.name,
            elapsed = ?started.elapsed(),
            "loaded the compiled component from the cache"
        );
        return Ok(compiled);
    }

    let compiled = Compiled::from_binary(engine, bytes).map_err(|error| {
        let text = one_line(&format!("{error:#}"));
        LaunchError::Component(format!("the component cannot be compiled: {text}"))
    })?;
    tracing::debug!(
        plugin = &*component.name,
        elapsed = ?started.elapsed(),
        "compiled the component"
    );
    if let Some(cache) = cache {
        cache.store(engine, bytes, &compiled);
    }
    Ok(compiled)
}

/// Puts the text of an engine's error on one line of bounded length.
fn one_line(text: &str) -> String {
    let mut line = escape(&text.replace('\n', " "));
    line.truncate(line.floor_char_boundary(MAX_ERROR_TEXT));
    line
}

#[cfg(test)]
mod tests;
