//! Why a check did not end in an admission.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use admission_proto::{Code, Status, escape};

use crate::error_kind::ErrorKind;
use crate::transport::Exit;

/// Why a check did not end in an admission.
///
/// Its text is the reference's where the reference has one; the accessors tell the
/// rest. Only `Denied` is a decision; all others mean that nothing was decided.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The plugin decided that the pin must not be deployed: `FAILED_PRECONDITION`.
    #[error("{}", escape(&status.message))]
    Denied {
        /// Name of the plugin.
        plugin: Arc<str>,
        /// What it answered.
        status: Arc<Status>,
    },
    /// The plugin could not decide: any other status.
    #[error("{}", escape(&status.message))]
    PolicyError {
        /// Name of the plugin.
        plugin: Arc<str>,
        /// What it answered.
        status: Arc<Status>,
    },
    /// The plugin was closed before it answered.
    #[error("the admission plugin is terminating")]
    Aborted {
        /// Name of the plugin.
        plugin: Arc<str>,
    },
    /// The plugin did not answer in time.
    #[error("the admission plugin did not answer within {}s", after.as_secs_f64())]
    TimedOut {
        /// Name of the plugin.
        plugin: Arc<str>,
        /// The `check_timeout` in force.
        after: Duration,
    },
    /// Too many checks are pending to take another.
    #[error("too many admission checks are pending: {pending}")]
    Overloaded {
        /// Name of the plugin.
        plugin: Arc<str>,
        /// How many are pending.
        pending: usize,
    },
    /// The plugin did not start, broke the protocol or ended.
    #[error(transparent)]
    Plugin(PluginError),
}

/// What became of a plugin that can answer no more.
#[derive(Debug, Clone)]
pub struct PluginError(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plugin: Arc<str>,
    kind: ErrorKind,
    text: String,
    exit: Option<Exit>,
    connected: bool,
    stderr_tail: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CheckError {
    /// Returns the name of the plugin that was asked.
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

    /// Returns what kind of error it is.
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

    /// Returns the code that the plugin answered with, if it did answer.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Denied { status, .. } | Self::PolicyError { status, .. } => Some(status.code),
            _ => None,
        }
    }

    /// Returns how the plugin ended, if that is why.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Plugin(error) => error.0.exit.as_ref(),
            _ => None,
        }
    }

    /// Tells whether it is that the plugin ended before it had connected: it may be made
    /// for another [`Wire`](crate::Wire), or miss something of its environment.
    #[must_use]
    pub fn ended_before_connecting(&self) -> bool {
        match self {
            Self::Plugin(error) => error.0.exit.is_some() && !error.0.connected,
            _ => false,
        }
    }

    /// Returns the last that the plugin wrote to stderr, escaped, or nothing.
    #[must_use]
    pub fn stderr_tail(&self) -> &str {
        match self {
            Self::Plugin(error) => &error.0.stderr_tail,
            _ => "",
        }
    }
}

impl PluginError {
    pub(crate) fn new(plugin: &Arc<str>, kind: ErrorKind, text: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            plugin: Arc::clone(plugin),
            kind,
            text: text.into(),
            exit: None,
            connected: true,
            stderr_tail: String::new(),
            source: None,
        }))
    }

    pub(crate) fn with_end(self, exit: Option<Exit>, stderr_tail: String) -> Self {
        self.change(|inner| {
            inner.exit = exit;
            inner.stderr_tail = stderr_tail;
        })
    }

    pub(crate) fn before_connecting(self) -> Self {
        self.change(|inner| inner.connected = false)
    }

    pub(crate) fn with_source(self, source: impl Error + Send + Sync + 'static) -> Self {
        self.change(|inner| inner.source = Some(Box::new(source)))
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::get_mut(&mut self.0).expect("it is being built and has one owner"));
        self
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl Error for PluginError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}
