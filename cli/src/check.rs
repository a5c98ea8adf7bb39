//! The command `check`.

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use admission_host::{Exit, Host, HostOptions, Pin, Plugin, PluginState, Repository};
use anyhow::Context as _;
use futures_util::stream::{self, StreamExt as _};
use indicatif::ProgressBar;
use tokio::runtime::{self, Handle};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::args::{AskingArgs, Format, Job};
use crate::error::describe_plugin_failure;
use crate::hint::{self, PluginKind};
use crate::input;
use crate::interrupt::{Interrupt, Interrupts};
use crate::output::{Checked, Columns, Outcome, Printer};
use crate::plugin::{self, Chosen};
use crate::repository;
use crate::service_url::ServiceUrl;
use crate::tally::Tally;
use crate::terminal::Terminal;

/// Exit status when anything failed, or could not be begun.
pub(crate) const FAILED: u8 = 2;

/// Exit status when pins were denied and nothing failed.
const DENIED: u8 = 1;

/// How long the plugin may take to finish once it is asked to.
const GRACE: Duration = Duration::from_secs(5);

/// How long a plugin may stay silent before somebody is told what to look at.
const SILENCE: Duration = Duration::from_secs(3);

/// Most checks that are pending. Bounds memory, and stays far below what a host takes.
const PENDING: usize = 65_536;

/// Most outcomes that wait to be printed.
const UNPRINTED: usize = 1024;

/// Worker threads: one for the plugin's conversation and one for everything else. The
/// thread that asks is a third.
const WORKERS: usize = 2;

/// Checks all pins of `job` and prints what became of each.
///
/// # Errors
///
/// If an input is broken or missing, before anything is started; or if stdout cannot be
/// written.
pub(crate) fn run(job: Job, terminal: &Terminal) -> anyhow::Result<ExitCode> {
    let inputs = input::read(job.pins)?;
    let chosen = plugin::choose(job.plugin, terminal)?;
    let service_url = match &job.asking.service_url {
        Some(url) => url.clone(),
        None => inputs.service_url(chosen.service_url.clone().unwrap_or_default())?,
    };
    let repository = repository::open(
        job.metadata,
        service_url.as_str(),
        job.asking.patience.timeout,
    )?;
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let check = Check::new(
        &job.asking,
        &service_url,
        chosen,
        repository,
        runtime.handle(),
        terminal,
    );
    let code = runtime.block_on(check.run(&inputs.pins));
    // Everything was closed, but for a thread that may be stuck in a write to stdout.
    runtime.shutdown_background();
    code
}

/// One plugin that is asked about pins.
struct Check<'a> {
    host: Host,
    plugin: Plugin,
    kind: PluginKind,
    format: Format,
    terminal: &'a Terminal,
}

impl<'a> Check<'a> {
    /// Prepares to ask, and starts nothing.
    fn new(
        asking: &AskingArgs,
        service_url: &ServiceUrl,
        chosen: Chosen,
        repository: Arc<dyn Repository>,
        runtime: &Handle,
        terminal: &'a Terminal,
    ) -> Self {
        let options = HostOptions::new(runtime.clone())
            .service_url(service_url.as_str())
            .repository(repository)
            .plugin_log_level(terminal.plugin_log_level());
        let kind = chosen.kind;
        let (host, plugin) = chosen.prepare(options, asking.patience);
        Self {
            plugin,
            host,
            kind,
            format: asking.format,
            terminal,
        }
    }

    /// Checks all pins, then closes the plugin, unless signals make it end sooner.
    async fn run(&self, pins: &[Pin]) -> anyhow::Result<ExitCode> {
        let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
        let mut work = pin!(self.check_and_close(pins));
        let mut silence = pin!(tokio::time::sleep(SILENCE));
        let mut first: Option<Interrupt> = None;
        loop {
            tokio::select! {
                worst = &mut work => {
                    let worst = worst?;
                    return Ok(exit_code(first, worst));
                }
                interrupt = interrupts.next() => match first {
                    None => {
                        first = Some(interrupt);
                        self.plugin.start_close(GRACE);
                    }
                    Some(first) => {
                        self.plugin.close(Duration::ZERO).await;
                        return Ok(ExitCode::from(first.exit_status()));
                    }
                },
                () = &mut silence, if !silence.is_elapsed() => self.mention_silence(),
            }
        }
    }

    async fn check_and_close(&self, pins: &[Pin]) -> anyhow::Result<Outcome> {
        let printer = Printer {
            format: self.format,
            columns: Columns::for_pins(pins, self.terminal.colours_stdout()),
            progress: self.terminal.progress_on_stdout(),
        };
        let (lines, printed) = mpsc::channel(UNPRINTED);
        let printing = spawn_blocking(move || printer.print(printed));
        let progress = self.terminal.progress(pins.len());
        let started = Instant::now();
        let tally = self.check_all(pins, &progress, lines).await;
        let took = started.elapsed();
        let printed = printing.await.expect("printing does not panic");
        progress.finish_and_clear();
        self.report(&tally, took);
        self.close(&tally).await;
        printed.context("cannot write to stdout")?;
        Ok(tally.worst())
    }

    /// Asks about all pins and hands on the outcomes in the order of the pins.
    async fn check_all(
        &self,
        pins: &[Pin],
        progress: &ProgressBar,
        lines: mpsc::Sender<Checked>,
    ) -> Tally {
        let mut tally = Tally::default();
        let mut checks = stream::iter(pins)
            .map(|pin| self.ask(pin, progress))
            .buffered(PENDING);
        while let Some(checked) = checks.next().await {
            tally.add(&checked);
            // Without a reader there is nothing to print, but the exit status is still owed.
            let _ = lines.send(checked).await;
        }
        tally
    }

    /// Asks now, and waits in the future that is returned.
    fn ask(&self, pin: &Pin, progress: &ProgressBar) -> impl Future<Output = Checked> {
        let asked = Instant::now();
        let answer = self.plugin.check_admission(pin).wait();
        async move {
            let result = answer.await;
            progress.inc(1);
            Checked {
                pin: pin.clone(),
                result,
                took: asked.elapsed(),
            }
        }
    }

    fn mention_silence(&self) {
        if matches!(self.plugin.state(), PluginState::Launching) {
            warn!(
                "the plugin `{}` has not connected after {} s: {}",
                self.plugin.name(),
                SILENCE.as_secs(),
                hint::about_silence(self.kind)
            );
        }
    }

    /// Says what concerns all pins together.
    fn report(&self, tally: &Tally, took: Duration) {
        if let Some(failure) = tally.plugin_failure() {
            let hint = hint::about_plugin(failure, self.kind);
            let failure = describe_plugin_failure(failure, hint);
            self.terminal.say(&format!("error: {failure}"));
        }
        if tally.timed_out() > 0
            && let Some(hint) = hint::what_next(admission_host::ErrorKind::Timeout, self.kind)
        {
            self.terminal.note(&format!("hint: {hint}"));
        }
        if let Format::Text = self.format {
            self.terminal.note(&tally.summary(took));
        }
    }

    async fn close(&self, tally: &Tally) {
        let exit = self.plugin.close(GRACE).await;
        self.host.close(GRACE).await;
        if tally.plugin_failure().is_none() && !matches!(exit, Exit::Success | Exit::NeverStarted) {
            warn!(
                "the plugin `{}` was closed and did not end well: {exit}",
                self.plugin.name()
            );
        }
    }
}

fn exit_code(interrupt: Option<Interrupt>, worst: Outcome) -> ExitCode {
    ExitCode::from(match (interrupt, worst) {
        (Some(interrupt), _) => interrupt.exit_status(),
        (None, Outcome::Admitted) => 0,
        (None, Outcome::Denied) => DENIED,
        (None, Outcome::Failed) => FAILED,
    })
}
