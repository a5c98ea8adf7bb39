//! A plugin that is a subprocess.

mod child;
mod ended;
pub mod guard;
mod guarded;
mod instance;
mod lookup;
mod output;
mod process;
mod spawn;
mod stat;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Once};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::stderr::StderrLog;
use super::{LaunchError, Launched, Launcher, Wire};
pub(crate) use guarded::GuardCommand;

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
    wire: Wire,
}

/// A command, and the guard under which it is to run.
#[derive(Debug, Clone)]
pub(crate) struct NativeLauncher {
    command: NativeCommand,
    guard: Option<GuardCommand>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Environment {
    AllowList,
    Inherited,
}

impl NativeCommand {
    /// Creates a command from the executable and its arguments. An executable
    /// without a slash is looked up in `PATH`; no shell is involved. One that is found
    /// there by way of a folder that is not absolute is not run.
    ///
    /// An empty `argv` is an error of the first check.
    pub fn new(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            variables: Vec::new(),
            environment: Environment::AllowList,
            wire: Wire::default(),
        }
    }

    /// Sets how the plugin and the host speak with each other; [`Wire::Stdio`] unless this
    /// is called.
    #[must_use]
    pub fn wire(mut self, wire: Wire) -> Self {
        self.wire = wire;
        self
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
        let executable = self.executable();
        let name = Path::new(executable).file_name().unwrap_or(executable);
        admission_proto::escape(&name.to_string_lossy()).into()
    }

    fn to_std(&self) -> Command {
        let mut command = Command::new(self.executable());
        command.args(self.argv.iter().skip(1));
        self.set_environment(&mut command);
        command
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the plugin's environment is taken from the host's"
    )]
    fn set_environment(&self, command: &mut Command) {
        if self.environment == Environment::AllowList {
            command.env_clear();
            for name in ENVIRONMENT {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    /// Returns where the plugin's environment says that executables are.
    #[expect(
        clippy::disallowed_methods,
        reason = "the plugin's environment is taken from the host's"
    )]
    fn search_path(&self) -> Option<OsString> {
        let own = self.variables.iter().rev().find(|(name, _)| name == "PATH");
        own.map_or_else(
            || std::env::var_os("PATH"),
            |(_, value)| Some(value.clone()),
        )
    }

    fn executable(&self) -> &OsStr {
        self.argv
            .first()
            .map(OsString::as_os_str)
            .unwrap_or_default()
    }
}

impl NativeLauncher {
    pub(crate) fn new(command: NativeCommand, guard: Option<GuardCommand>) -> Self {
        Self { command, guard }
    }
}

impl Launcher for NativeLauncher {
    /// Spawning takes a moment and is never given up: whoever closes the plugin gets
    /// the process, to be killed and reaped in order. A guard may take longer.
    fn launch(
        &self,
        stderr: StderrLog,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<Launched, LaunchError>> {
        let Self { command, guard } = self.clone();
        async move {
            if command.argv.is_empty() {
                return Err(LaunchError::EmptyCommand);
            }
            let executable = command.executable();
            if let Some(path) = command.search_path()
                && lookup::depends_on_working_directory(executable, &path)
            {
                return Err(spawn::found_relatively(executable));
            }
            match guard {
                Some(guard) => launch_guarded(command, guard, cancel, stderr).await,
                None => launch(command, stderr).await,
            }
        }
        .boxed()
    }

    fn wire(&self) -> Wire {
        self.command.wire
    }
}

async fn launch_guarded(
    command: NativeCommand,
    guard: GuardCommand,
    cancel: CancellationToken,
    stderr: StderrLog,
) -> Result<Launched, LaunchError> {
    let executable = command.executable().to_owned();
    let (guarded, pipes) = guard.start(command, cancel).await?;
    instance::launched(guarded, pipes, stderr).map_err(|source| spawn::error(&executable, source))
}

async fn launch(command: NativeCommand, stderr: StderrLog) -> Result<Launched, LaunchError> {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            "no guard was configured: what a plugin starts in a process group of its own may \
             outlive it"
        );
    });
    let error = |source| spawn::error(command.executable(), source);
    let (child, pipes) = child::spawn(command.to_std()).await.map_err(error)?;
    let child = child.watched().map_err(error)?;
    instance::launched(child, pipes, stderr).map_err(error)
}
