//! One guest, from its instantiation to its exit.

use std::io::{self, Write};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use wasmtime::{Engine, Error, Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::CommandPre;

use super::cpu::{CpuMeter, Ticker};
use super::limits::{MAX_COPIED, MAX_HANDLES, exceeded_limit};
use super::pipe::{HostReader, HostWriter, Pipe};
use super::sandbox::GuestState;
use super::stdio::{GuestStderr, GuestStdin, GuestStdout};
use super::{Component, one_line};
use crate::error_kind::ErrorKind;
use crate::transport::stderr::StderrLog;
use crate::transport::{Exit, LaunchError, Launched, RunningPlugin};

/// Longest backtrace that is written to stderr, in bytes. A guest chooses the names of its
/// functions, and a mangled name can expand to a much longer one.
const MAX_BACKTRACE: usize = 16 << 10;

/// Prepares a guest, which runs when the returned plugin is polled.
///
/// # Errors
///
/// If the system starts no more threads.
pub(super) fn start(
    engine: &Engine,
    command: CommandPre<GuestState>,
    component: &Component,
    stderr: StderrLog,
) -> Result<Launched, LaunchError> {
    let ticker = Ticker::acquire(engine)?;
    let (stdin, stdout) = (Pipe::default(), Pipe::default());
    let meter = Arc::new(CpuMeter::new(component.cpu_limit));
    let state = GuestState::new(
        GuestStdin {
            pipe: stdin.clone(),
            meter: Arc::clone(&meter),
        },
        GuestStdout {
            pipe: stdout.clone(),
            meter: Arc::clone(&meter),
        },
        GuestStderr(stderr.clone()),
        component.memory_limit,
        component.name(),
        &component.args,
    );
    let store = new_store(engine, state, Arc::clone(&meter));
    Ok(Launched {
        stdin: Box::pin(HostWriter(stdin.clone())),
        stdout: Box::pin(HostReader(stdout.clone())),
        process: Box::new(RunningGuest {
            guest: Some(Box::pin(run(command, store, stderr.clone(), ticker))),
            meter,
            stdin,
            stdout,
            stderr,
            poller: AtomicWaker::new(),
        }),
    })
}

fn new_store(engine: &Engine, state: GuestState, meter: Arc<CpuMeter>) -> Store<GuestState> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limits);
    store.set_max_component_handles(MAX_HANDLES);
    store.set_hostcall_fuel(MAX_COPIED);
    meter.interrupt(&mut store);
    store
}

async fn run(
    command: CommandPre<GuestState>,
    mut store: Store<GuestState>,
    stderr: StderrLog,
    _ticker: Arc<Ticker>,
) -> Exit {
    let command = match command.instantiate_async(&mut store).await {
        Ok(command) => command,
        Err(error) => return describe_exit("trap: cannot be instantiated", &error, &stderr),
    };
    match command.wasi_cli_run().call_run(&mut store).await {
        Ok(Ok(())) => Exit::Success,
        Ok(Err(())) => failed_exit(),
        Err(error) => describe_exit("trap", &error, &stderr),
    }
}

/// A running guest. Owns the only future of the guest: dropping the future stops the guest.
struct RunningGuest {
    /// `None` once the guest has exited or was stopped.
    guest: Option<BoxFuture<'static, Exit>>,
    meter: Arc<CpuMeter>,
    stdin: Pipe,
    stdout: Pipe,
    stderr: StderrLog,
    /// The task that waits for the exit.
    poller: AtomicWaker,
}

impl RunningPlugin for RunningGuest {
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        let Some(guest) = &mut self.guest else {
            return Poll::Ready(Exit::KilledByHost);
        };
        self.meter.resume();
        if let Poll::Ready(exit) = guest.as_mut().poll(cx) {
            self.stop();
            return Poll::Ready(exit);
        }
        self.meter.pause();
        self.poller.register(cx.waker());
        Poll::Pending
    }

    fn kill(&mut self) {
        self.stop();
        self.poller.wake();
    }
}

impl RunningGuest {
    /// Stops the guest if it still runs, and then closes its streams.
    fn stop(&mut self) {
        if self.guest.take().is_some() {
            self.stdin.close_reader();
            self.stdout.close_writer();
            self.stderr.finish();
        }
    }
}

impl Drop for RunningGuest {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns the exit of a guest that called `exit` or trapped. Adds the backtrace of a trap to
/// its stderr.
fn describe_exit(prefix: &str, error: &Error, stderr: &StderrLog) -> Exit {
    match error.downcast_ref() {
        Some(I32Exit(0)) => return Exit::Success,
        Some(I32Exit(_)) => return failed_exit(),
        None => {}
    }
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        // The backtrace follows the last line of the guest, even if that is incomplete.
        stderr.finish();
        let mut text = [0; MAX_BACKTRACE];
        let mut room = &mut text[..];
        let _cut = write_backtrace(&mut room, backtrace);
        let unused = room.len();
        stderr.write(&text[..MAX_BACKTRACE - unused]);
    }
    let (kind, reason) = if let Some(limit) = exceeded_limit(error) {
        (ErrorKind::Resource, limit)
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        let text = trap.to_string();
        let text = text.strip_prefix("wasm trap: ").unwrap_or(&text);
        (ErrorKind::Trap, text.to_owned())
    } else {
        // The host has refused a call. The innermost cause has the reason.
        (ErrorKind::Trap, one_line(&error.root_cause().to_string()))
    };
    Exit::failed(kind, format!("{prefix}: {reason}"))
}

/// Returns the exit of a guest that failed. WASI 0.2 has no exit status but success and failure.
fn failed_exit() -> Exit {
    Exit::failed(ErrorKind::Crash, "exit status 1")
}

/// Writes the function names of a backtrace in readable form. The engine could do so, but its
/// feature `demangle` brings a demangler of C++ names, which are hostile input too.
///
/// # Errors
///
/// If `out` has no room left.
fn write_backtrace(out: &mut impl Write, backtrace: &WasmBacktrace) -> io::Result<()> {
    writeln!(out, "error while executing at wasm backtrace:")?;
    for (index, frame) in backtrace.frames().iter().enumerate() {
        let module = frame.module().name().unwrap_or("<unknown>");
        let offset = frame.module_offset().unwrap_or_default();
        write!(out, "  {index:>3}: {offset:#8x} - {module}!")?;
        match frame.func_name() {
            Some(name) => writeln!(out, "{:#}", rustc_demangle::demangle(name))?,
            None => writeln!(out, "<wasm function {}>", frame.func_index())?,
        }
    }
    Ok(())
}
