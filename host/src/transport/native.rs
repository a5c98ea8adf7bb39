//! A plugin that is a subprocess.

mod child;
mod output;
mod spawn;

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use super::stderr::StderrLog;
use super::{Exit, Instance, LaunchError, Launched, Launcher};
use child::Child;
use output::{Output, Rest};

/// Variables that a plugin sees of the host's environment unless told otherwise:
/// enough to find programs and to print dates and messages, and no secrets.
const ENVIRONMENT: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// How to start a native plugin.
///
/// It gets its arguments as they are, the host's working directory, and of the
/// environment `PATH`, `HOME`, `LANG`, `TZ` and what is added here. It inherits no
/// descriptor but its three pipes.
#[derive(Debug, Clone)]
pub struct NativeCommand {
    argv: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    environment: Environment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Environment {
    AllowList,
    Inherited,
}

impl NativeCommand {
    /// Creates a command from the executable and its arguments. An executable
    /// without a slash is looked up in `PATH`; no shell is involved.
    ///
    /// An empty `argv` is an error of the first check.
    pub fn new(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            variables: Vec::new(),
            environment: Environment::AllowList,
        }
    }

    /// Adds a variable to the plugin's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Lets the plugin see all of the host's environment, whatever secrets it holds.
    #[must_use]
    pub fn inherit_environment(mut self) -> Self {
        self.environment = Environment::Inherited;
        self
    }

    /// Returns the base name of the executable.
    pub(crate) fn plugin_name(&self) -> Arc<str> {
        let executable = self
            .argv
            .first()
            .map(OsString::as_os_str)
            .unwrap_or_default();
        let name = Path::new(executable).file_name().unwrap_or(executable);
        admission_proto::escape(&name.to_string_lossy()).into()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the plugin's environment is taken from the host's"
    )]
    fn to_std(&self) -> Result<Command, LaunchError> {
        let (executable, arguments) = self.argv.split_first().ok_or(LaunchError::EmptyCommand)?;
        let mut command = Command::new(executable);
        command.args(arguments);
        if self.environment == Environment::AllowList {
            command.env_clear();
            for name in ENVIRONMENT {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    fn executable(&self) -> &OsStr {
        self.argv
            .first()
            .map(OsString::as_os_str)
            .unwrap_or_default()
    }
}

impl Launcher for NativeCommand {
    /// Spawning takes a moment and is never given up: whoever closes the plugin gets
    /// the child, to be killed and reaped in order.
    fn launch(
        &self,
        stderr: StderrLog,
        _: CancellationToken,
    ) -> BoxFuture<'static, Result<Launched, LaunchError>> {
        let this = self.clone();
        async move {
            let command = this.to_std()?;
            let error = |source| spawn::error(this.executable(), source);
            let spawned = spawn::spawn(command).await.map_err(error)?;
            launched(spawned, stderr).map_err(error)
        }
        .boxed()
    }
}

/// Registers what was spawned with the runtime.
fn launched(spawned: spawn::Spawned, stderr: StderrLog) -> std::io::Result<Launched> {
    let rest = Arc::new(Rest::default());
    let stdout = Output::new(spawned.stdout, Arc::clone(&rest))?;
    let instance = NativeInstance {
        exited: spawned.child.watch()?,
        child: spawned.child,
        stderr: Some(Output::new(spawned.stderr, Arc::clone(&rest))?),
        log: stderr,
        rest,
        killed: false,
    };
    Ok(Launched {
        stdin: Box::pin(pipe::Sender::from_owned_fd(spawned.stdin)?),
        stdout: Box::pin(stdout),
        instance: Box::new(instance),
    })
}

struct NativeInstance {
    /// Readable once the child is a zombie.
    exited: AsyncFd<OwnedFd>,
    child: Child,
    /// `None` once it has ended.
    stderr: Option<Output>,
    log: StderrLog,
    rest: Arc<Rest>,
    killed: bool,
}

impl Instance for NativeInstance {
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        self.read_stderr(cx);
        loop {
            // An error here would be the runtime's own end, which drops this task anyway.
            let Ok(mut ready) = std::task::ready!(self.exited.poll_read_ready(cx)) else {
                return Poll::Pending;
            };
            if self.child.has_exited() {
                break;
            }
            ready.clear_ready();
        }
        // From here the pipes give what is in them, and never wait for a grandchild.
        self.rest.begin();
        let exit = self.child.reap(self.killed);
        self.read_stderr(cx);
        self.log.finish();
        Poll::Ready(exit)
    }

    fn kill(&mut self) {
        self.killed = true;
        self.child.kill();
    }
}

impl NativeInstance {
    fn read_stderr(&mut self, cx: &mut Context<'_>) {
        let mut chunk = [0; 8 << 10];
        while let Some(stderr) = &mut self.stderr {
            match stderr.poll_chunk(cx, &mut chunk) {
                Poll::Ready(Ok(0) | Err(_)) => self.stderr = None,
                Poll::Ready(Ok(n)) => self.log.write(&chunk[..n]),
                Poll::Pending => return,
            }
        }
    }
}

impl Output {
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        let mut buf = tokio::io::ReadBuf::new(chunk);
        std::task::ready!(tokio::io::AsyncRead::poll_read(
            Pin::new(self),
            cx,
            &mut buf
        ))?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}
