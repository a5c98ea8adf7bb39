//! A native plugin with a guard: the host's side.

use std::ffi::OsString;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd as _;
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
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use super::NativeCommand;
use super::guard::{FIRST_FREE_FD, REPORT_LEN, Report};
use super::pipes::{OutputPipe, Pipes, StderrReader};
use super::process::{Process, Stat, describe_exit};
use super::spawn;
use crate::error_kind::ErrorKind;
use crate::transport::stderr::StderrLog;
use crate::transport::{Exit, LaunchError, Launched, RunningPlugin};

/// How long a guard may take to start the plugin. A guard needs milliseconds. The timeout
/// detects a program that is configured as the guard by mistake.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a guard may take to exit before it is killed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// How to start a guard.
#[derive(Debug, Clone)]
pub(crate) struct GuardCommand {
    program: OsString,
    arguments: Vec<OsString>,
}

/// A running guard with its plugin. Dropping it makes the guard kill everything.
struct GuardedPlugin {
    guard: Process,
    /// Carries the guard's reports. Closing its write side requests the kill.
    socket: UnixStream,
    /// A report of which `received` bytes have arrived.
    report: [u8; REPORT_LEN],
    received: usize,
    /// `None` until the guard has reported it.
    plugin: Option<Pid>,
    stderr: StderrReader,
    /// Whether the host has requested the kill.
    killed: bool,
}

impl GuardCommand {
    pub(crate) fn new(program: OsString, arguments: Vec<OsString>) -> Self {
        Self { program, arguments }
    }

    /// Starts `plugin` under a guard. If `cancel` is cancelled first, the guard kills it.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the guard kills what it has started.
    pub(super) async fn launch(
        self,
        plugin: NativeCommand,
        log: StderrLog,
        cancel: CancellationToken,
    ) -> Result<Launched, LaunchError> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        plugin.set_environment(&mut command);
        let argv = plugin.argv.clone();
        let spawned = spawn::run_on_spawner(move || spawn_guard(command, argv, log)).await;
        let (mut running, stdin, stdout) = spawned.map_err(|source| match source.kind() {
            // The plugin's arguments and environment are the guard's too.
            io::ErrorKind::InvalidInput | io::ErrorKind::ArgumentListTooLong => {
                spawn::launch_error(plugin.executable(), source)
            }
            _ => self.error(source),
        })?;
        let report = running.receive_first_report(START_TIMEOUT);
        let report = match cancel.run_until_cancelled(report).await {
            Some(report) => report,
            None => {
                running.kill();
                running.receive_first_report(EXIT_TIMEOUT).await
            }
        };
        let error = match report {
            Ok(Report::Started(plugin)) => {
                running.plugin = Pid::from_raw(plugin);
                return Ok(Launched {
                    stdin: Box::pin(stdin),
                    stdout: Box::pin(stdout),
                    process: Box::new(running),
                });
            }
            Ok(Report::NotStarted(errno)) => {
                spawn::launch_error(plugin.executable(), io::Error::from_raw_os_error(errno))
            }
            Ok(Report::GuardFailed(errno)) => self.error(io::Error::from_raw_os_error(errno)),
            Ok(Report::Exited(_)) => self.error(io::ErrorKind::InvalidData.into()),
            Err(source) => self.error(source),
        };
        running.kill_and_reap_guard().await;
        Err(error)
    }

    fn error(&self, source: io::Error) -> LaunchError {
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
    log: StderrLog,
) -> io::Result<(GuardedPlugin, pipe::Sender, OutputPipe)> {
    let pipes = Pipes::attach(&mut command, log)?;
    let (socket, theirs) = UnixStream::pair()?;
    let theirs = theirs.into_std()?;
    theirs.set_nonblocking(false)?;
    // Its number must not be 0, 1 or 2, which the pipes get.
    let theirs = fcntl_dupfd_cloexec(theirs, FIRST_FREE_FD)?;
    command.arg(theirs.as_raw_fd().to_string()).args(argv);
    // The host's copy of `theirs` is dropped with the command, so that the socket is
    // closed when the guard exits.
    let guard = spawn::configure_guard(&mut command, theirs).spawn()?;
    let running = GuardedPlugin {
        guard: Process::new(&guard)?,
        socket,
        report: [0; REPORT_LEN],
        received: 0,
        plugin: None,
        stderr: pipes.stderr,
        killed: false,
    };
    Ok((running, pipes.stdin, pipes.stdout))
}

impl GuardedPlugin {
    async fn receive_first_report(&mut self, timeout: Duration) -> io::Result<Report> {
        let report = poll_fn(|cx| self.poll_report(cx));
        match tokio::time::timeout(timeout, report).await {
            Ok(Some(report)) => Ok(report),
            Ok(None) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it exited, or is not a guard of this version",
            )),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it did not respond within {} s", timeout.as_secs()),
            )),
        }
    }

    /// Returns `None` if the guard closed the socket, or sent anything but a report.
    fn poll_report(&mut self, cx: &mut Context<'_>) -> Poll<Option<Report>> {
        while self.received < REPORT_LEN {
            let mut buf = ReadBuf::new(&mut self.report[self.received..]);
            let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf));
            match buf.filled().len() {
                0 => return Poll::Ready(None),
                _ if read.is_err() => return Poll::Ready(None),
                n => self.received += n,
            }
        }
        self.received = 0;
        Poll::Ready(Report::decode(self.report))
    }

    /// Kills and reaps a guard that has not started the plugin.
    async fn kill_and_reap_guard(mut self) {
        self.kill();
        let exited = poll_fn(|cx| self.guard.poll_exited(cx));
        if tokio::time::timeout(EXIT_TIMEOUT, exited).await.is_err() {
            self.guard.signal(Signal::KILL);
        }
        poll_fn(|cx| self.guard.poll_exited(cx)).await;
        self.guard.reap();
    }
}

impl RunningPlugin for GuardedPlugin {
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        self.stderr.poll(cx);
        let exit = match ready!(self.poll_report(cx)) {
            Some(Report::Exited(status)) => describe_exit(status, self.killed),
            // The kernel kills the plugin when its guard exits. The exit status is lost.
            _ => Exit::failed(ErrorKind::Crash, "its guard died"),
        };
        self.stderr.finish(cx);
        Poll::Ready(exit)
    }

    /// If the guard has reaped the plugin, the report of its exit will arrive soon.
    fn is_exiting(&self) -> bool {
        let plugin = self.plugin.and_then(Stat::read);
        plugin.is_none_or(|plugin| plugin.exiting)
    }

    /// The guard exits when nothing else is left, or fails.
    fn poll_reaped(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        ready!(self.guard.poll_exited(cx));
        let status = self.guard.reap();
        Poll::Ready(status.is_some_and(|status| status.success()))
    }

    fn kill(&mut self) {
        self.killed = true;
        // The plugin may have stopped its guard.
        self.guard.signal(Signal::CONT);
        // Fails if the guard has exited. Then the kernel has killed the plugin.
        let _guard_died = rustix::net::shutdown(&self.socket, Shutdown::Write);
    }
}

impl Drop for GuardedPlugin {
    fn drop(&mut self) {
        // The socket is closed next, which requests the kill. The guard may be stopped.
        self.guard.signal(Signal::CONT);
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    /// Starts a program that is not a guard and does not exit, and returns the error.
    async fn error_with(cancel: CancellationToken) -> LaunchError {
        let guard = GuardCommand::new("sh".into(), vec!["-c".into(), "exec sleep 1000".into()]);
        let log = StderrLog::new("test".into());
        let launched = guard
            .launch(NativeCommand::new(["true"]), log, cancel)
            .await;
        launched.err().expect("the plugin was not started")
    }

    /// The clock is paused: it advances when there is nothing else to wait for.
    #[tokio::test(start_paused = true)]
    async fn a_program_that_is_not_a_guard_times_out() {
        let error = error_with(CancellationToken::new()).await;
        assert_eq!(
            error.to_string(),
            "failed to launch the plugin: its guard `sh` does not work"
        );
        let cause = error.source().map(ToString::to_string);
        assert_eq!(cause.as_deref(), Some("it did not respond within 10 s"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_launch_does_not_wait_for_the_guard_to_start() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let begun = tokio::time::Instant::now();
        let error = error_with(cancel).await;
        assert_eq!(error.kind(), ErrorKind::Launch);
        assert!(begun.elapsed() < START_TIMEOUT);
    }
}
