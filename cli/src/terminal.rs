//! Whoever sits in front of it: logs, colours, the progress bar, last words.

use std::io::{self, IsTerminal as _, Write};

use admission_host::LogLevel;
use anstream::{AutoStream, ColorChoice};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::{Color, TerminalArgs};

/// Most pins that are not worth a progress bar.
const FEW: usize = 100;

/// What is shown on stderr, and how stdout may look.
pub(crate) struct Terminal {
    args: TerminalArgs,
    progress: ProgressBar,
}

impl Terminal {
    /// Takes charge of logs and colours, for the whole process.
    pub(crate) fn new(args: TerminalArgs) -> Self {
        match args.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        }
        .write_global();
        let terminal = Self {
            args,
            progress: ProgressBar::hidden(),
        };
        terminal.log();
        terminal
    }

    /// Returns what plugins are asked to log: as much as will be shown.
    pub(crate) fn plugin_log_level(&self) -> LogLevel {
        match self.level() {
            LevelFilter::ERROR => LogLevel::Error,
            LevelFilter::WARN => LogLevel::Warning,
            LevelFilter::INFO => LogLevel::Info,
            _ => LogLevel::Debug,
        }
    }

    /// Tells whether stdout takes colours.
    pub(crate) fn colours_stdout(&self) -> bool {
        AutoStream::choice(&io::stdout()) != ColorChoice::Never
    }

    /// Returns the bar to advance, which is seen only if it is worth it.
    pub(crate) fn progress(&self, pins: usize) -> ProgressBar {
        if pins > FEW && !self.args.quiet && io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {elapsed}")
                .expect("the template is valid");
            self.progress.set_style(style);
            self.progress.set_length(pins as u64);
            self.progress.reset_elapsed();
            self.progress.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.progress.clone()
    }

    /// Returns what must step aside while stdout is written: the bar, on the same terminal.
    ///
    /// Elsewhere it need not, and must not: a stdout that blocks would hold up the logs.
    pub(crate) fn progress_on_stdout(&self) -> Option<ProgressBar> {
        io::stdout().is_terminal().then(|| self.progress.clone())
    }

    /// Writes a line to stderr, also where only errors are wanted.
    pub(crate) fn say(&self, line: &str) {
        self.progress.suspend(|| {
            // Where stderr cannot be written there is nobody left to tell.
            let _ = writeln!(io::stderr(), "{line}");
        });
    }

    /// Writes a line to stderr, unless only errors are wanted.
    pub(crate) fn note(&self, line: &str) {
        if !self.args.quiet {
            self.say(line);
        }
    }

    fn level(&self) -> LevelFilter {
        match (self.args.quiet, self.args.verbose) {
            (true, _) => LevelFilter::ERROR,
            (false, 0) => LevelFilter::WARN,
            (false, 1) => LevelFilter::INFO,
            (false, _) => LevelFilter::DEBUG,
        }
    }

    fn log(&self) {
        let level = self.level();
        // What the engine and the runtime have to say at lower levels helps nobody here.
        let ours = Targets::new()
            .with_default(level.min(LevelFilter::WARN))
            .with_target("admit", level)
            .with_target("admission_host", level)
            // Told by `admit` itself, and once.
            .with_target("admission_host::end", level.min(LevelFilter::ERROR));
        let lines = tracing_subscriber::fmt::layer()
            .without_time()
            .with_target(false)
            .with_ansi(AutoStream::choice(&io::stderr()) != ColorChoice::Never)
            .with_writer(BesideProgress(self.progress.clone()));
        tracing_subscriber::registry().with(lines).with(ours).init();
    }
}

/// Writes to stderr while the progress bar steps aside.
#[derive(Clone)]
struct BesideProgress(ProgressBar);

impl Write for BesideProgress {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for BesideProgress {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
