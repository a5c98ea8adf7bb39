//! A plugin that is the child of a guard, as the host sees it.

use std::ffi::OsString;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::Shutdown;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::NativeCommand;
use super::ended::Ended;
use super::guard::FIRST_FREE;
use super::guard::report::{self, Report};
use super::instance::Keeper;
use super::process::{Process, Watch};
use super::spawn::{self, Pipes};
use super::stat::Stat;
use crate::error_kind::ErrorKind;
use crate::transport::{Exit, LaunchError};

/// How long a guard may take to start the plugin. One that works needs milliseconds;
/// this is for a program that was named by mistake and does something else.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a guard may take to do what it is ordered to before it is taken for a program
/// that is none and is killed.
const DISMISSAL: Duration = Duration::from_secs(1);

/// How to start a guard.
#[derive(Debug, Clone)]
pub(crate) struct GuardCommand {
    program: OsString,
    arguments: Vec<OsString>,
}

/// A guard that has started its plugin. Dropping it makes it end everything.
pub(super) struct Guarded {
    process: Process,
    /// As the guard has told; `None` until then.
    plugin: Option<Pid>,
    exited: Watch,
    /// Its end for writing is how the guard is told to kill.
    reports: UnixStream,
    /// The beginning of a report.
    report: [u8; report::LEN],
    heard: usize,
    killed: bool,
}

impl GuardCommand {
    pub(crate) fn new(program: OsString, arguments: Vec<OsString>) -> Self {
        Self { program, arguments }
    }

    /// Starts `plugin` under a guard, and orders it to be killed when `cancel` comes
    /// first.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the guard ends whatever it has started.
    pub(super) async fn start(
        self,
        plugin: NativeCommand,
        cancel: CancellationToken,
    ) -> Result<(Guarded, Pipes), LaunchError> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        plugin.set_environment(&mut command);
        let argv = plugin.argv.clone();
        let spawned = spawn::on_spawner(move || spawn_guard(command, argv)).await;
        let (process, reports, pipes) = spawned.map_err(|source| match source.kind() {
            // The plugin's arguments and environment are the guard's too.
            io::ErrorKind::InvalidInput | io::ErrorKind::ArgumentListTooLong => {
                spawn::error(plugin.executable(), source)
            }
            _ => self.unfit(source),
        })?;
        let watched = Guarded::new(process, reports);
        let mut guarded = watched.map_err(|source| self.unfit(source))?;
        let starting = guarded.first_report(START_TIMEOUT);
        let report = match cancel.run_until_cancelled(starting).await {
            Some(report) => report,
            None => {
                guarded.kill();
                guarded.first_report(DISMISSAL).await
            }
        };
        let error = match report {
            Ok(Report::Started(plugin)) => {
                guarded.plugin = Pid::from_raw(plugin);
                return Ok((guarded, pipes));
            }
            Ok(Report::NotStarted(errno)) => {
                spawn::error(plugin.executable(), io::Error::from_raw_os_error(errno))
            }
            Ok(Report::Unfit(errno)) => self.unfit(io::Error::from_raw_os_error(errno)),
            Ok(Report::Ended(_)) => self.unfit(io::ErrorKind::InvalidData.into()),
            Err(source) => self.unfit(source),
        };
        guarded.dismiss().await;
        Err(error)
    }

    fn unfit(&self, source: io::Error) -> LaunchError {
        LaunchError::Guard {
            program: PathBuf::from(&self.program),
            source,
        }
    }
}

/// Runs on the spawning thread.
fn spawn_guard(
    mut command: Command,
    argv: Vec<OsString>,
) -> io::Result<(Process, StdUnixStream, Pipes)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    // Where it is not in the way of the three pipes.
    let theirs = fcntl_dupfd_cloexec(theirs, FIRST_FREE)?;
    command.arg(theirs.as_raw_fd().to_string()).args(argv);
    let (process, pipes) = spawn::piped(spawn::guard(&mut command, theirs))?;
    // The command is dropped, and the guard's end with it: who reads ours learns when
    // the guard has died.
    Ok((process, ours, pipes))
}

impl Guarded {
    fn new(process: Process, reports: StdUnixStream) -> io::Result<Self> {
        Ok(Self {
            exited: process.watch()?,
            process,
            plugin: None,
            reports: UnixStream::from_std(reports)?,
            report: [0; report::LEN],
            heard: 0,
            killed: false,
        })
    }

    async fn first_report(&mut self, timeout: Duration) -> io::Result<Report> {
        let report = poll_fn(|cx| self.poll_report(cx));
        match tokio::time::timeout(timeout, report).await {
            Ok(Some(report)) => Ok(report),
            Ok(None) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it ended, or is no guard of this version",
            )),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it did nothing for {} s", timeout.as_secs()),
            )),
        }
    }

    /// Returns `None` if there will be no report that makes sense.
    fn poll_report(&mut self, cx: &mut Context<'_>) -> Poll<Option<Report>> {
        while self.heard < report::LEN {
            let mut buf = ReadBuf::new(&mut self.report[self.heard..]);
            let read = ready!(Pin::new(&mut self.reports).poll_read(cx, &mut buf));
            match buf.filled().len() {
                0 => return Poll::Ready(None),
                _ if read.is_err() => return Poll::Ready(None),
                n => self.heard += n,
            }
        }
        self.heard = 0;
        Poll::Ready(Report::decode(self.report))
    }

    /// Ends a guard that has no plugin, or did not say that it has one, or is none.
    async fn dismiss(mut self) {
        self.kill();
        let ended = poll_fn(|cx| self.exited.poll_exited(cx, &self.process));
        if tokio::time::timeout(DISMISSAL, ended).await.is_err() {
            self.process.signal(Signal::KILL);
        }
        poll_fn(|cx| self.exited.poll_exited(cx, &self.process)).await;
        self.process.reap();
    }
}

impl Keeper for Guarded {
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        let report = ready!(self.poll_report(cx));
        let Some(Report::Ended(ended)) = report else {
            // Its death has killed the plugin, and how that ended cannot be known.
            return Poll::Ready(Exit::failed(ErrorKind::Crash, "its guard has died"));
        };
        Poll::Ready(ended.exit(self.killed))
    }

    /// A plugin that the guard has reaped is gone, and its report on the way.
    fn is_exiting(&self) -> bool {
        let plugin = self.plugin.and_then(Stat::of);
        plugin.is_none_or(|plugin| plugin.exiting)
    }

    /// The guard ends when nothing else is left, or says so by its exit status.
    fn poll_reaped(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        ready!(self.exited.poll_exited(cx, &self.process));
        Poll::Ready(matches!(self.process.reap(), Some(Ended::Exited(0))))
    }

    fn kill(&mut self) {
        self.killed = true;
        // Its plugin may have stopped it.
        self.process.signal(Signal::CONT);
        // It fails when the guard is gone, and then the plugin is too.
        let _gone = rustix::net::shutdown(&self.reports, Shutdown::Write);
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // The socket is closed now, which is the order to kill.
        self.process.signal(Signal::CONT);
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    /// Starts something that is alive and no guard, and returns why there is no plugin.
    async fn error_with(cancel: CancellationToken) -> LaunchError {
        let guard = GuardCommand::new("sh".into(), vec!["-c".into(), "exec sleep 1000".into()]);
        let started = guard.start(NativeCommand::new(["true"]), cancel).await;
        started.err().expect("nobody has started it")
    }

    /// With a clock that goes on by itself when there is nothing else to wait for.
    #[tokio::test(start_paused = true)]
    async fn a_program_that_does_something_else_is_given_up() {
        let error = error_with(CancellationToken::new()).await;
        assert_eq!(
            error.to_string(),
            "failed to launch the plugin: its guard `sh` does not work"
        );
        let cause = error.source().map(ToString::to_string);
        assert_eq!(cause.as_deref(), Some("it did nothing for 10 s"));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_closes_does_not_wait_for_a_guard_to_start() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let begun = tokio::time::Instant::now();
        let error = error_with(cancel).await;
        assert_eq!(error.kind(), ErrorKind::Launch);
        assert!(begun.elapsed() < START_TIMEOUT);
    }
}
