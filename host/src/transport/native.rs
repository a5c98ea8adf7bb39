//! A native plugin: a subprocess, with or without a guard.

pub mod guard;
mod guarded;
mod pipes;
mod process;
mod spawn;
mod unguarded;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Once};

use admission_proto::Wire;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::stderr::StderrLog;
use super::{LaunchError, Launched, Launcher};
pub(crate) use guarded::GuardCommand;

/// Variables of the host's environment that every plugin gets: enough to find programs and
/// to print dates and messages, and no secrets.
const INHERITED_VARIABLES: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// How to start a native plugin.
///
/// The plugin gets the arguments unchanged, the host's working directory, the variables `PATH`,
/// `HOME`, `LANG` and `TZ` of the host's environment, and the variables that are added here. It
/// inherits only the descriptors of its three pipes.
#[derive(Clone)]
pub struct NativeCommand {
    argv: Vec<OsString>,
    /// Added to the environment. If a name is repeated, the last value counts.
    variables: Vec<(OsString, OsString)>,
    environment: Environment,
    wire: Wire,
}

/// Which variables of the host's environment a plugin gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Environment {
    /// [`INHERITED_VARIABLES`] only.
    AllowList,
    Inherited,
}

impl NativeCommand {
    /// Creates a command from the executable and its arguments.
    ///
    /// An executable without a slash is looked up in `PATH`, without a shell. It is not run if
    /// `PATH` names its directory by a relative path. An empty `argv` is an error of the first
    /// check.
    pub fn new(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            variables: Vec::new(),
            environment: Environment::AllowList,
            wire: Wire::default(),
        }
    }

    /// Sets the wire between plugin and host. The default is [`Wire::Stdio`].
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

    /// Passes the host's whole environment to the plugin, including all secrets in it.
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
        reason = "a plugin's environment is taken from the host's"
    )]
    fn set_environment(&self, command: &mut Command) {
        if self.environment == Environment::AllowList {
            command.env_clear();
            for name in INHERITED_VARIABLES {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    /// Returns `PATH` of the plugin's environment.
    #[expect(
        clippy::disallowed_methods,
        reason = "a plugin's environment is taken from the host's"
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

/// Shows the names of variables without their values, which may be secrets.
impl fmt::Debug for NativeCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.variables.iter().map(|(name, _)| name).collect();
        f.debug_struct("NativeCommand")
            .field("argv", &self.argv)
            .field("variables", &names)
            .field("environment", &self.environment)
            .field("wire", &self.wire)
            .finish()
    }
}

/// Starts native plugins, under a guard if there is one.
pub(crate) struct NativeLauncher {
    command: NativeCommand,
    guard: Option<GuardCommand>,
}

impl NativeLauncher {
    pub(crate) fn new(command: NativeCommand, guard: Option<GuardCommand>) -> Self {
        Self { command, guard }
    }
}

impl Launcher for NativeLauncher {
    /// A launch without a guard ignores `cancel`: it takes a moment, and the caller kills and
    /// reaps the process. A launch with a guard may take longer and observes it.
    fn launch(
        &self,
        stderr: StderrLog,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<Launched, LaunchError>> {
        let (command, guard) = (self.command.clone(), self.guard.clone());
        async move {
            if command.argv.is_empty() {
                return Err(LaunchError::EmptyCommand);
            }
            if let Some(path) = command.search_path() {
                spawn::check_lookup(command.executable(), &path)?;
            }
            if let Some(guard) = guard {
                return guard.launch(command, stderr, cancel).await;
            }
            warn_once_of_missing_guard();
            unguarded::launch(command.to_std(), stderr)
                .await
                .map_err(|source| spawn::launch_error(command.executable(), source))
        }
        .boxed()
    }

    fn wire(&self) -> Wire {
        self.command.wire
    }
}

fn warn_once_of_missing_guard() {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            "no guard is configured: a process that a plugin starts may outlive it in another \
             process group"
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_value_of_a_variable() {
        let command = NativeCommand::new(["policy", "-v"]).env("TOKEN", "secret");
        let text = format!("{command:?}");
        assert!(text.contains("TOKEN") && text.contains("policy"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
