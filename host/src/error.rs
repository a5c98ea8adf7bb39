//! Errors of checks and plugins.

use std::sync::Arc;
use std::time::Duration;

use admission_proto::{Code, Status, escape};

use crate::error_kind::ErrorKind;
use crate::transport::{Exit, LaunchError};

/// Why a check did not end in an admission.
///
/// Only `Denied` is a decision of the plugin; all others mean that the plugin did not decide.
/// Where the [reference](crate#the-reference) has a text for an error, the text is the same.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The plugin decided that the pin must not be deployed: `FAILED_PRECONDITION`.
    #[error("{}", escape(&status.message))]
    #[non_exhaustive]
    Denied {
        /// Name of the plugin.
        plugin: Arc<str>,
        /// The plugin's verdict.
        status: Arc<Status>,
    },
    /// The plugin could not decide: any other status but OK.
    #[error("{}", escape(&status.message))]
    #[non_exhaustive]
    PolicyError {
        /// Name of the plugin.
        plugin: Arc<str>,
        /// The plugin's verdict.
        status: Arc<Status>,
    },
    /// The plugin was closed before it settled the check.
    #[error("the admission plugin is terminating")]
    #[non_exhaustive]
    Aborted {
        /// Name of the plugin.
        plugin: Arc<str>,
    },
    /// The plugin did not settle the check in time.
    #[error("the admission plugin did not answer within {}s", after.as_secs_f64())]
    #[non_exhaustive]
    TimedOut {
        /// Name of the plugin.
        plugin: Arc<str>,
        /// The [check timeout](crate::PluginOptions::check_timeout).
        after: Duration,
    },
    /// Too many checks are pending.
    #[error("too many admission checks are pending: {pending}")]
    #[non_exhaustive]
    Overloaded {
        /// Name of the plugin.
        plugin: Arc<str>,
        /// How many are pending.
        pending: usize,
    },
    /// The plugin failed: it did not start, broke the protocol or exited.
    #[error(transparent)]
    Plugin(PluginError),
}

/// Why a plugin failed. All its pending and later checks get the same error.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct PluginError(Arc<Failure>);

/// The contents of a [`PluginError`].
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    pub(crate) plugin: Arc<str>,
    pub(crate) kind: ErrorKind,
    pub(crate) text: String,
    /// The exit of the plugin, if the exit is the failure.
    pub(crate) exit: Option<Exit>,
    pub(crate) connected: bool,
    pub(crate) stderr_tail: String,
    pub(crate) source: Option<LaunchError>,
}

impl CheckError {
    /// Creates the error of a verdict that is not OK: `Denied` or `PolicyError`.
    #[must_use]
    pub fn from_status(plugin: impl Into<Arc<str>>, status: Status) -> Self {
        let denied = status.code == Code::FAILED_PRECONDITION;
        let plugin = plugin.into();
        let status = Arc::new(status);
        if denied {
            Self::Denied { plugin, status }
        } else {
            Self::PolicyError { plugin, status }
        }
    }

    /// Creates an `Aborted` error.
    #[must_use]
    pub fn aborted(plugin: impl Into<Arc<str>>) -> Self {
        let plugin = plugin.into();
        Self::Aborted { plugin }
    }

    /// Creates a `TimedOut` error.
    #[must_use]
    pub fn timed_out(plugin: impl Into<Arc<str>>, after: Duration) -> Self {
        let plugin = plugin.into();
        Self::TimedOut { plugin, after }
    }

    /// Creates an `Overloaded` error.
    #[must_use]
    pub fn overloaded(plugin: impl Into<Arc<str>>, pending: usize) -> Self {
        let plugin = plugin.into();
        Self::Overloaded { plugin, pending }
    }

    /// Returns the name of the plugin.
    #[must_use]
    pub fn plugin(&self) -> &str {
        match self {
            Self::Denied { plugin, .. }
            | Self::PolicyError { plugin, .. }
            | Self::Aborted { plugin }
            | Self::TimedOut { plugin, .. }
            | Self::Overloaded { plugin, .. } => plugin,
            Self::Plugin(error) => &error.0.plugin,
        }
    }

    /// Returns the error's kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Denied { .. } => ErrorKind::Denied,
            Self::PolicyError { .. } => ErrorKind::PolicyError,
            Self::Aborted { .. } => ErrorKind::Aborted,
            Self::TimedOut { .. } => ErrorKind::Timeout,
            Self::Overloaded { .. } => ErrorKind::Overload,
            Self::Plugin(error) => error.0.kind,
        }
    }

    /// Returns the code of the plugin's verdict, if there was a verdict.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Denied { status, .. } | Self::PolicyError { status, .. } => Some(status.code),
            _ => None,
        }
    }

    /// Returns how the plugin exited, if its exit is the cause.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Plugin(error) => error.0.exit.as_ref(),
            _ => None,
        }
    }

    /// Returns whether the plugin exited before it connected. It may be built for another
    /// [`Wire`](crate::Wire), or lack something in its environment.
    #[must_use]
    pub fn exited_before_connecting(&self) -> bool {
        match self {
            Self::Plugin(error) => error.0.exit.is_some() && !error.0.connected,
            _ => false,
        }
    }

    /// Returns the last 64 KiB that the plugin wrote to stderr, escaped; empty if the error
    /// is not the plugin's failure.
    #[must_use]
    pub fn stderr_tail(&self) -> &str {
        match self {
            Self::Plugin(error) => &error.0.stderr_tail,
            _ => "",
        }
    }
}

impl From<Failure> for PluginError {
    fn from(failure: Failure) -> Self {
        Self(Arc::new(failure))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn plugin_error(text: &str) -> PluginError {
        PluginError::from(Failure {
            plugin: "policy".into(),
            kind: ErrorKind::Crash,
            text: text.to_owned(),
            exit: None,
            connected: true,
            stderr_tail: String::new(),
            source: None,
        })
    }
}
