//! The command `check`.

use std::fs::File;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use admission_host::{ErrorKind, Exit, Host, HostOptions, Pin, Plugin, PluginState};
use admission_proto::{ServiceUrl, escape};
use anyhow::Context as _;
use futures_util::stream::{self, StreamExt as _};
use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::args::{CheckArgs, Format, PluginArgs};
use crate::cipd_config::CipdConfig;
use crate::error::render_plugin_failure;
use crate::hint::{self, PluginKind};
use crate::input::Inputs;
use crate::output::{CheckedPin, Columns, Outcome, Printer};
use crate::plugin::{ConfiguredPlugin, start_runtime};
use crate::repository;
use crate::signals::Signals;
use crate::summary::Summary;
use crate::terminal::Terminal;

/// Exit status if anything failed, or could not be started.
pub(crate) const FAILED: u8 = 2;

/// Exit status if pins were denied and nothing failed.
const DENIED: u8 = 1;

/// Time that the plugin has to exit after it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// Time that the plugin may take to connect before a warning.
const SLOW_CONNECT: Duration = Duration::from_secs(3);

/// Maximum number of pending checks. Limits the memory use. A host accepts far more.
const MAX_PENDING: usize = 65_536;

/// Maximum number of outcomes that wait to be printed.
const MAX_UNPRINTED: usize = 1024;

/// Checks all pins and prints their outcomes.
///
/// # Errors
///
/// If an input is invalid or missing, which is found before the plugin is started, or if stdout
/// cannot be written.
pub(crate) fn run(args: CheckArgs, terminal: &Terminal) -> anyhow::Result<ExitCode> {
    let inputs = Inputs::read(args.pins)?;
    for (file, what) in [
        (&args.plugin.component.component, "component"),
        (&args.metadata.auth_token_file, "token file"),
    ] {
        if let Some(file) = file {
            try_open(file)
                .with_context(|| format!("cannot read the {what} `{}`", file.display()))?;
        }
    }
    let timeout = args.plugin.timeout;
    let (plugin, default_url) = match args.from_cipd_config {
        true => configure_from_cipd(args.plugin, terminal)?,
        false => (ConfiguredPlugin::from_args(args.plugin), None),
    };
    let service_url = match args.service_url {
        Some(url) => url,
        None => inputs.service_url(default_url.unwrap_or_default())?,
    };
    let repository = repository::open(args.metadata, &service_url, timeout)?;
    let runtime = start_runtime()?;
    let kind = plugin.kind;
    let (host, plugin) = plugin.create(
        HostOptions::new(runtime.handle().clone())
            .service_url(service_url.as_str())
            .repository(repository)
            .plugin_log_level(terminal.plugin_log_level()),
    );
    let check = Check {
        host,
        plugin,
        kind,
        format: args.format,
        terminal,
    };
    let code = runtime.block_on(check.run(&inputs.pins));
    // The plugin is closed. The only thread that may be left is blocked in a write to stdout.
    runtime.shutdown_background();
    code
}

/// Checks that a file can be opened, before the plugin is started.
fn try_open(file: &Path) -> io::Result<()> {
    if File::open(file)?.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(())
}

fn configure_from_cipd(
    args: PluginArgs,
    terminal: &Terminal,
) -> anyhow::Result<(ConfiguredPlugin, Option<ServiceUrl>)> {
    let config = CipdConfig::load()?;
    terminal.print_note(&escape(&format!(
        "using the plugin `{}` of {} with --wire grpc and --inherit-env, as cipd does",
        config.argv[0].display(),
        config.origin
    )));
    let plugin = ConfiguredPlugin::from_cipd_config(config.argv, args);
    Ok((plugin, config.service_url))
}

/// A plugin that checks pins.
struct Check<'a> {
    host: Host,
    plugin: Plugin,
    kind: PluginKind,
    format: Format,
    terminal: &'a Terminal,
}

impl Check<'_> {
    /// Checks all pins, then closes the plugin. The first signal closes the plugin at once, and
    /// the second signal kills it.
    async fn run(&self, pins: &[Pin]) -> anyhow::Result<ExitCode> {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let mut checks = pin!(self.check_and_close(pins));
        let mut slow_connect = pin!(tokio::time::sleep(SLOW_CONNECT));
        let mut signal_status: Option<u8> = None;
        loop {
            tokio::select! {
                worst = &mut checks => {
                    let status = match worst? {
                        Outcome::Admitted => 0,
                        Outcome::Denied => DENIED,
                        Outcome::Failed => FAILED,
                    };
                    return Ok(ExitCode::from(signal_status.unwrap_or(status)));
                }
                status = signals.next() => match signal_status {
                    None => {
                        signal_status = Some(status);
                        self.plugin.start_close(GRACE);
                    }
                    Some(first) => {
                        self.plugin.close(Duration::ZERO).await;
                        return Ok(ExitCode::from(first));
                    }
                },
                () = &mut slow_connect, if !slow_connect.is_elapsed() => self.warn_if_connecting(),
            }
        }
    }

    async fn check_and_close(&self, pins: &[Pin]) -> anyhow::Result<Outcome> {
        let printer = Printer {
            format: self.format,
            columns: Columns::for_pins(pins, self.terminal.colours_stdout()),
            progress: self.terminal.progress_on_stdout(),
        };
        let (sender, receiver) = mpsc::channel(MAX_UNPRINTED);
        let printing = spawn_blocking(move || printer.print(receiver));
        let progress = self.terminal.start_progress(pins.len());
        let started = Instant::now();
        let summary = self.check_all(pins, &progress, sender).await;
        let duration = started.elapsed();
        let printed = printing.await.expect("printing does not panic");
        progress.finish_and_clear();
        self.report(&summary, duration);
        self.close(&summary).await;
        printed.context("cannot write to stdout")?;
        Ok(summary.worst())
    }

    /// Checks all pins, and sends the outcomes to the printer in the order of the pins.
    async fn check_all(
        &self,
        pins: &[Pin],
        progress: &ProgressBar,
        printer: mpsc::Sender<CheckedPin>,
    ) -> Summary {
        let mut summary = Summary::default();
        let mut checks = stream::iter(pins)
            .map(|pin| self.check(pin, progress))
            .buffered(MAX_PENDING);
        while let Some(checked) = checks.next().await {
            summary.add(&checked);
            // If stdout has no reader, the printer ends early. The checks must continue then,
            // because the exit status depends on all of them.
            let _ = printer.send(checked).await;
        }
        summary
    }

    /// Starts a check immediately. The returned future waits for the result.
    fn check(&self, pin: &Pin, progress: &ProgressBar) -> impl Future<Output = CheckedPin> {
        let started = Instant::now();
        let result = self.plugin.check_admission(pin).wait();
        async move {
            let result = result.await;
            progress.inc(1);
            CheckedPin {
                pin: pin.clone(),
                result,
                duration: started.elapsed(),
            }
        }
    }

    fn warn_if_connecting(&self) {
        if matches!(self.plugin.state(), PluginState::Launching) {
            warn!(
                "the plugin `{}` has not connected after {} s: {}",
                self.plugin.name(),
                SLOW_CONNECT.as_secs(),
                hint::for_slow_connect(self.kind)
            );
        }
    }

    /// Prints the errors that concern all pins, and the summary.
    fn report(&self, summary: &Summary, duration: Duration) {
        if let Some(failure) = &summary.plugin_failure {
            let hint = hint::for_plugin_failure(failure, self.kind);
            let failure = render_plugin_failure(failure, hint);
            self.terminal.print_error(&format!("error: {failure}"));
        }
        if summary.timed_out
            && let Some(hint) = hint::for_error_kind(ErrorKind::Timeout, self.kind)
        {
            self.terminal.print_note(&format!("hint: {hint}"));
        }
        if let Format::Text = self.format {
            self.terminal.print_note(&summary.line(duration));
        }
    }

    async fn close(&self, summary: &Summary) {
        let exit = self.plugin.close(GRACE).await;
        self.host.close(GRACE).await;
        let is_clean = matches!(exit, Exit::Success | Exit::NeverStarted);
        if summary.plugin_failure.is_none() && !is_clean {
            let name = self.plugin.name();
            warn!("the plugin `{name}` did not shut down cleanly: {exit}");
        }
    }
}
