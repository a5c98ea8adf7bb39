//! One guest, from its instantiation to its end.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::p2::bindings::CommandPre;

use super::cpu::{CpuMeter, Progress, Verdict};
use super::engine::Ticker;
use super::limits::{Exceeded, Limits, MAX_COPIED, MAX_HANDLES};
use super::outcome::{self, Stage};
use super::pipe::{HostReader, HostWriter, Pipe};
use super::sandbox::Guest;
use super::stdio::{GuestStderr, GuestStdin, GuestStdout};
use crate::transport::stderr::StderrLog;
use crate::transport::{Exit, LaunchError, Launched, RunningPlugin};

/// Ticks until the guest is looked at: it is at every one.
const NEXT_TICK: u64 = 1;

/// What the embedder allows one guest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// Bytes of linear memory.
    pub(super) memory: u64,
    /// CPU time in one burst.
    pub(super) cpu: Duration,
}

/// Prepares a guest. It begins to run when the instance is polled.
///
/// # Errors
///
/// When the system starts no more threads.
pub(super) fn start(
    engine: &Engine,
    command: CommandPre<Guest>,
    allowance: Allowance,
    stderr: StderrLog,
) -> Result<Launched, LaunchError> {
    let ticker = Ticker::acquire(engine)?;
    let (stdin, stdout) = (Pipe::default(), Pipe::default());
    let progress = Arc::new(Progress::default());
    let meter = Arc::new(CpuMeter::new(allowance.cpu));

    let guest = Guest::new(
        GuestStdin::new(stdin.clone(), Arc::clone(&progress)),
        GuestStdout::new(stdout.clone(), Arc::clone(&progress)),
        GuestStderr::new(stderr.clone()),
        Limits::new(allowance.memory),
    );
    let store = store(engine, guest, allowance, Arc::clone(&meter), progress);

    let instance = WasmInstance {
        running: Some(Running {
            guest: Box::pin(run(command, store, stderr.clone())),
            _ticker: ticker,
        }),
        meter,
        stdin: stdin.clone(),
        stdout: stdout.clone(),
        stderr,
        poller: None,
    };
    Ok(Launched {
        stdin: Box::pin(HostWriter::new(stdin)),
        stdout: Box::pin(HostReader::new(stdout)),
        process: Box::new(instance),
    })
}

fn store(
    engine: &Engine,
    guest: Guest,
    allowance: Allowance,
    meter: Arc<CpuMeter>,
    progress: Arc<Progress>,
) -> Store<Guest> {
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.limits);
    store.set_max_component_handles(MAX_HANDLES);
    store.set_hostcall_fuel(MAX_COPIED);
    // Before anything runs: without a deadline, the first instruction is past it.
    store.set_epoch_deadline(NEXT_TICK);
    store.epoch_deadline_callback(move |_| match meter.ticked(&progress) {
        Verdict::GoOn => Ok(UpdateDeadline::Continue(NEXT_TICK)),
        Verdict::Yield => Ok(UpdateDeadline::Yield(NEXT_TICK)),
        Verdict::Exceeded => Err(Exceeded::Cpu(allowance.cpu).into()),
    });
    store
}

async fn run(command: CommandPre<Guest>, mut store: Store<Guest>, stderr: StderrLog) -> Exit {
    let command = match command.instantiate_async(&mut store).await {
        Ok(command) => command,
        Err(error) => return outcome::cut_off(Stage::Instantiating, &error, &stderr),
    };
    match command.wasi_cli_run().call_run(&mut store).await {
        Ok(result) => outcome::returned(result),
        Err(error) => outcome::cut_off(Stage::Running, &error, &stderr),
    }
}

/// The handle of a guest. Its future lives here and nowhere else, so that dropping it
/// is the end of the guest, wherever it was.
struct WasmInstance {
    running: Option<Running>,
    meter: Arc<CpuMeter>,
    stdin: Pipe,
    stdout: Pipe,
    stderr: StderrLog,
    /// Who waits for the end.
    poller: Option<Waker>,
}

struct Running {
    guest: BoxFuture<'static, Exit>,
    _ticker: Arc<Ticker>,
}

impl RunningPlugin for WasmInstance {
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        let Some(running) = &mut self.running else {
            return Poll::Ready(Exit::KilledByHost);
        };
        self.meter.resumed();
        if let Poll::Ready(exit) = running.guest.as_mut().poll(cx) {
            self.end();
            return Poll::Ready(exit);
        }
        self.meter.paused();
        match &mut self.poller {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.poller = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn kill(&mut self) {
        self.end();
        if let Some(poller) = self.poller.take() {
            poller.wake();
        }
    }
}

impl WasmInstance {
    /// Ends the guest, if it has not ended, and then its streams.
    fn end(&mut self) {
        if self.running.take().is_none() {
            return;
        }
        self.stdin.close_reader();
        self.stdout.close_writer();
        self.stderr.finish();
    }
}

impl Drop for WasmInstance {
    fn drop(&mut self) {
        self.end();
    }
}
