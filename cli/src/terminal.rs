//! The terminal: logs, colours, the progress bar and messages on stderr.

use std::io::{self, IsTerminal as _, Write};

use admission_host::LogLevel;
use anstream::{AutoStream, ColorChoice};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::{Color, TerminalArgs};

/// Most pins that are checked without a progress bar.
const FEW_PINS: usize = 100;

/// The terminal of the command `check`.
pub(crate) struct Terminal {
    level: LevelFilter,
    progress: ProgressBar,
}

impl Terminal {
    /// Sets up logging and colours for the whole process.
    pub(crate) fn new(args: TerminalArgs) -> Self {
        match args.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        }
        .write_global();
        let terminal = Self {
            level: match (args.quiet, args.verbose) {
                (true, _) => LevelFilter::ERROR,
                (false, 0) => LevelFilter::WARN,
                (false, 1) => LevelFilter::INFO,
                (false, _) => LevelFilter::DEBUG,
            },
            progress: ProgressBar::hidden(),
        };
        terminal.install_logger();
        terminal
    }

    fn install_logger(&self) {
        let targets = Targets::new()
            // wasmtime and tokio log details that are not about plugins.
            .with_default(self.level.min(LevelFilter::WARN))
            .with_target("admit", self.level)
            .with_target("admission_host", self.level)
            // `check` reports the failure of a plugin itself.
            .with_target("admission_host::end", self.level.min(LevelFilter::ERROR));
        let progress = self.progress.clone();
        let lines = tracing_subscriber::fmt::layer()
            .without_time()
            .with_target(false)
            .with_ansi(AutoStream::choice(&io::stderr()) != ColorChoice::Never)
            .with_writer(move || StderrWithProgress(progress.clone()));
        tracing_subscriber::registry()
            .with(lines)
            .with(targets)
            .init();
    }

    /// Returns the level at which plugins log. It is the level of the lines on stderr.
    pub(crate) fn plugin_log_level(&self) -> LogLevel {
        match self.level {
            LevelFilter::ERROR => LogLevel::Error,
            LevelFilter::WARN => LogLevel::Warning,
            LevelFilter::INFO => LogLevel::Info,
            _ => LogLevel::Debug,
        }
    }

    /// Returns whether stdout gets colours.
    pub(crate) fn colours_stdout(&self) -> bool {
        AutoStream::choice(&io::stdout()) != ColorChoice::Never
    }

    /// Starts the progress bar, which is visible only for many pins and on a terminal.
    pub(crate) fn start_progress(&self, pins: usize) -> ProgressBar {
        if pins > FEW_PINS && !self.is_quiet() && io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {elapsed}")
                .expect("the template is valid");
            self.progress.set_style(style);
            self.progress.set_length(pins as u64);
            self.progress.reset_elapsed();
            self.progress.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.progress.clone()
    }

    /// Returns the progress bar to hide while stdout is written, if both share a terminal.
    ///
    /// Without a terminal the bar must not wait for stdout, which may block and would delay
    /// the logs.
    pub(crate) fn progress_on_stdout(&self) -> Option<ProgressBar> {
        io::stdout().is_terminal().then(|| self.progress.clone())
    }

    /// Prints a line to stderr, even with `--quiet`.
    pub(crate) fn print_error(&self, line: &str) {
        self.progress.suspend(|| {
            // If stderr cannot be written there is nowhere to report that.
            let _ = writeln!(io::stderr(), "{line}");
        });
    }

    /// Prints a line to stderr, unless `--quiet` is given.
    pub(crate) fn print_note(&self, line: &str) {
        if !self.is_quiet() {
            self.print_error(line);
        }
    }

    fn is_quiet(&self) -> bool {
        self.level == LevelFilter::ERROR
    }
}

/// Stderr. Hides the progress bar during each write.
struct StderrWithProgress(ProgressBar);

impl Write for StderrWithProgress {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
