//! The plugins that the tests compare, and what a client learns of them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use conformance::modes::{component, component_cache, native};
use conformance::{
    CheckError, Component, Detail, ErrorKind, GRACE, Host, NativeCommand, Pin, Plugin, Promise,
    Source, Wire,
};
use tempfile::TempDir;

/// Who judges behind `admit cipd-plugin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inner {
    Command,
    Component,
}

impl Inner {
    pub(crate) const BOTH: [Self; 2] = [Self::Command, Self::Component];

    /// Returns the plugin of this name, as a plugin of the client itself.
    pub(crate) fn direct(self, plugin: &str) -> Source {
        match self {
            Self::Command => NativeCommand::new([native(plugin)]).into(),
            Self::Component => Component::from_file(component(plugin)).into(),
        }
    }

    /// Returns `admit cipd-plugin` with these options, which has the plugin of this name judge.
    pub(crate) fn relayed(self, wire: Wire, plugin: &str, options: &[&str]) -> NativeCommand {
        self.relayed_by(wire, admit().into(), plugin, options)
    }

    /// As [`relayed`](Self::relayed), with `admit` under another name.
    pub(crate) fn relayed_by(
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

/// Defines a test whose one body runs with a client of either wire, under its name.
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

/// Returns `admit cipd-plugin` with these options and this command as the plugin.
pub(crate) fn relayed_command(wire: Wire, options: &[&str], command: &[OsString]) -> NativeCommand {
    NativeCommand::new(argv(options, command)).wire(wire)
}

/// Returns the command line of `admit cipd-plugin` with these options and this command.
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

/// `admit` under another name, by which its log lines are told from those of other tests.
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

/// All that a client learns of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) kind: ErrorKind,
    /// The status of the plugin, unless it gave none.
    pub(crate) code: Option<i32>,
    pub(crate) message: String,
    pub(crate) details: Vec<Detail>,
}

/// Waits for a check; `None` is an admission.
pub(crate) async fn told(check: &Promise) -> Option<Told> {
    let error = check.wait().await.err()?;
    let (message, details) = match &error {
        CheckError::Denied { status, .. } | CheckError::PolicyError { status, .. } => {
            (status.message.clone(), status.details.clone())
        }
        error => (error.to_string(), Vec::new()),
    };
    Some(Told {
        kind: error.kind(),
        code: error.code().map(|code| code.number()),
        message,
        details,
    })
}

/// Has a plugin asked about all pins at once, and returns what a client learns of each.
pub(crate) async fn told_of_all(
    host: &Host,
    source: impl Into<Source>,
    pins: &[Pin],
) -> Vec<Option<Told>> {
    let plugin = host.plugin(source);
    let checks: Vec<_> = pins.iter().map(|pin| plugin.check_admission(pin)).collect();
    let mut outcomes = Vec::new();
    for check in &checks {
        outcomes.push(told(check).await);
    }
    plugin.close(GRACE).await;
    outcomes
}
