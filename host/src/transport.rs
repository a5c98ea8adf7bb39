//! Starting and stopping a plugin: its two byte streams and the running plugin.

pub(crate) mod native;
pub(crate) mod stderr;
#[cfg(feature = "wasm")]
pub(crate) mod wasm;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use admission_proto::Wire;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::error_kind::ErrorKind;
use stderr::StderrLog;

/// Starts a plugin. Implemented for subprocesses and for components.
pub(crate) trait Launcher: Send + Sync {
    /// Starts the plugin. Its stderr goes to `stderr`.
    ///
    /// Runs no guest code: instantiating a component is the first part of its
    /// [`RunningPlugin::poll_exit`], so that connect timeout and Close cover it.
    ///
    /// After `cancel` is cancelled this resolves promptly. A launch that cannot be
    /// interrupted completes, and the caller must kill the plugin.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the process that it has started, a moment later.
    fn launch(
        &self,
        stderr: StderrLog,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<Launched, LaunchError>>;

    /// Returns the wire of the plugin.
    fn wire(&self) -> Wire {
        Wire::Stdio
    }
}

/// A plugin that was started.
pub(crate) struct Launched {
    /// Its stdin. Dropping it asks the plugin to shut down.
    pub(crate) stdin: Pin<Box<dyn AsyncWrite + Send>>,
    /// Its stdout. After [`RunningPlugin::poll_exit`] was ready, it yields the bytes that were
    /// written before the exit, then end-of-file, and is never pending again.
    pub(crate) stdout: Pin<Box<dyn AsyncRead + Send>>,
    /// Its process, or its guest.
    pub(crate) process: Box<dyn RunningPlugin>,
}

/// A running plugin. Dropping it kills the plugin.
pub(crate) trait RunningPlugin: Send {
    /// Waits for the exit, and reads stderr until then.
    ///
    /// For a component this *is* the guest: not polling it pauses it. Must not be
    /// called again after it was ready.
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit>;

    /// Returns whether the plugin executes no more code. `poll_exit` may still be pending for
    /// a moment.
    fn is_exiting(&self) -> bool {
        false
    }

    /// Kills the plugin. `poll_exit` becomes ready soon, with [`Exit::KilledByHost`]
    /// unless the plugin exited before.
    fn kill(&mut self);

    /// Waits, after `poll_exit` was ready, until the plugin's descendants are reaped.
    /// Returns whether all of them are reaped, as far as the host knows. Must not be called
    /// again after it was ready.
    fn poll_reaped(&mut self, _: &mut Context<'_>) -> Poll<bool> {
        Poll::Ready(true)
    }
}

/// The exit of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It was closed before it was started, or could not be started.
    NeverStarted,
    /// It exited by itself with status 0.
    Success,
    /// It exited by itself, and not with status 0.
    #[non_exhaustive]
    Failed {
        /// Description, as in the reference: `exit status 3`, `signal: killed`, `trap: ...`.
        words: Arc<str>,
        /// A crash, a trap, or a limit that was exceeded.
        kind: ErrorKind,
    },
    /// The host killed it.
    KilledByHost,
}

impl Exit {
    /// Creates an exit that is not a success.
    pub(crate) fn failed(kind: ErrorKind, words: impl Into<Arc<str>>) -> Self {
        Self::Failed {
            words: words.into(),
            kind,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NeverStarted => "never started",
            Self::Success => "terminated with 0 exit code",
            Self::Failed { words, .. } => words,
            Self::KilledByHost => "killed by the host",
        })
    }
}

/// Why a plugin could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// There is no executable to start.
    #[error("need at least one argument (the executable to start)")]
    EmptyCommand,
    /// The host was closed.
    #[error("failed to launch the plugins grpc server: the plugins host is already closed")]
    HostClosed,
    /// The gRPC server of the host failed.
    #[error("failed to launch the plugins grpc server: {0}")]
    Server(Arc<io::Error>),
    /// The plugin was closed while it was being launched.
    #[error("failed to launch the plugin: it was closed during the launch")]
    #[cfg(feature = "wasm")]
    Cancelled,
    /// The system did not start the executable.
    #[error("failed to launch the plugin: {words}")]
    Spawn {
        /// Description, as in the reference.
        words: String,
        /// The system's error.
        source: io::Error,
    },
    /// The guard failed before it started the executable.
    #[error("failed to launch the plugin: its guard `{}` does not work", program.display())]
    Guard {
        /// The guard's program.
        program: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file of a component cannot be read.
    #[cfg(feature = "wasm")]
    #[error("failed to launch the plugin: cannot read the component `{}`", path.display())]
    ComponentFile {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The component cannot be compiled or run.
    #[cfg(feature = "wasm")]
    #[error("failed to launch the plugin: {0}")]
    Component(String),
    /// The component has imports that the sandbox does not provide.
    #[cfg(feature = "wasm")]
    #[error(
        "failed to launch the plugin: the component has imports that are not part of WASI 0.2: {}",
        names.join(", ")
    )]
    Imports {
        /// Every such import, as the component names it.
        names: Vec<String>,
    },
}

impl LaunchError {
    /// Returns the error's kind.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            #[cfg(feature = "wasm")]
            Self::Imports { .. } => ErrorKind::Import,
            _ => ErrorKind::Launch,
        }
    }
}
