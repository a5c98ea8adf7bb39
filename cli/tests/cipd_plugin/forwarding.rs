//! The plugins that the tests compare, and the outcomes that a client gets from them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use conformance::modes::{component, component_cache, native};
use conformance::{
    CheckError, Component, Detail, ErrorKind, GRACE, Host, NativeCommand, Pin, Promise, Source,
    Wire,
};
use tempfile::TempDir;

/// The kind of plugin to which `admit cipd-plugin` forwards checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PolicyKind {
    Command,
    Component,
}

impl PolicyKind {
    pub(crate) const BOTH: [Self; 2] = [Self::Command, Self::Component];

    /// Returns the plugin of this name, to be run by the client itself.
    pub(crate) fn direct(self, plugin: &str) -> Source {
        match self {
            Self::Command => NativeCommand::new([native(plugin)]).into(),
            Self::Component => Component::from_file(component(plugin)).into(),
        }
    }

    /// Returns `admit cipd-plugin` with these options and the plugin of this name as the policy.
    pub(crate) fn forwarded(self, wire: Wire, plugin: &str, options: &[&str]) -> NativeCommand {
        self.forwarded_by(wire, admit().into(), plugin, options)
    }

    /// Behaves like [`forwarded`](Self::forwarded), with `admit` under another name.
    pub(crate) fn forwarded_by(
        self,
        wire: Wire,
        admit: OsString,
        plugin: &str,
        options: &[&str],
    ) -> NativeCommand {
        let mut argv = vec![admit, "cipd-plugin".into()];
        argv.extend(options.iter().map(OsString::from));
        match self {
            Self::Command => argv.extend(["--".into(), native(plugin).into()]),
            Self::Component => argv.extend([
                "--cache-dir".into(),
                component_cache().into(),
                "--component".into(),
                component(plugin).into(),
            ]),
        }
        NativeCommand::new(argv).wire(wire)
    }
}

/// Defines a test that runs twice, with a client of either wire.
macro_rules! over_both_wires {
    ($(async fn $name:ident($wire:ident: Wire) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn body($wire: Wire) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn stdio() {
                conformance::guarded(body(Wire::Stdio)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn grpc() {
                conformance::guarded(body(Wire::Grpc)).await;
            }
        }
    )*};
}

pub(crate) use over_both_wires;

/// Returns `admit cipd-plugin` with these options and this command as the policy.
pub(crate) fn forwarded_command(
    wire: Wire,
    options: &[&str],
    command: &[OsString],
) -> NativeCommand {
    NativeCommand::new(argv(options, command)).wire(wire)
}

/// Returns the command line of [`forwarded_command`].
pub(crate) fn argv(options: &[&str], command: &[OsString]) -> Vec<OsString> {
    let mut argv = vec![admit().into(), "cipd-plugin".into()];
    argv.extend(options.iter().map(OsString::from));
    argv.push("--".into());
    argv.extend_from_slice(command);
    argv
}

/// Returns the program under test.
pub(crate) fn admit() -> &'static str {
    env!("CARGO_BIN_EXE_admit")
}

/// `admit` under another name, by which a test finds its log lines.
pub(crate) struct Renamed {
    pub(crate) admit: PathBuf,
    _folder: TempDir,
}

impl Renamed {
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        symlink(fs::canonicalize(admit()).unwrap(), &path).unwrap();
        Self {
            admit: path,
            _folder: folder,
        }
    }
}

/// How a check ended, as far as a client can see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) kind: ErrorKind,
    /// The code of the plugin's status, if it sent one.
    pub(crate) code: Option<i32>,
    pub(crate) message: String,
    pub(crate) details: Vec<Detail>,
}

/// Waits for a check. Returns `None` for an admission.
pub(crate) async fn outcome(check: &Promise) -> Option<Outcome> {
    let error = check.wait().await.err()?;
    let (message, details) = match &error {
        CheckError::Denied { status, .. } | CheckError::PolicyError { status, .. } => {
            (status.message.clone(), status.details.clone())
        }
        error => (error.to_string(), Vec::new()),
    };
    Some(Outcome {
        kind: error.kind(),
        code: error.code().map(|code| code.number()),
        message,
        details,
    })
}

/// Checks all pins at once with one plugin.
pub(crate) async fn outcomes_of(
    host: &Host,
    source: impl Into<Source>,
    pins: &[Pin],
) -> Vec<Option<Outcome>> {
    let plugin = host.plugin(source);
    let checks: Vec<_> = pins.iter().map(|pin| plugin.check_admission(pin)).collect();
    let mut outcomes = Vec::new();
    for check in &checks {
        outcomes.push(outcome(check).await);
    }
    plugin.close(GRACE).await;
    outcomes
}
