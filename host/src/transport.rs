//! How a plugin is started and ended: two byte streams and a handle.

pub(crate) mod native;
pub(crate) mod stderr;
pub(crate) mod wasm;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::error_kind::ErrorKind;
use stderr::StderrLog;

/// Starts a plugin. Implemented by the subprocess and by the component.
pub(crate) trait Launcher: Send + Sync {
    /// Starts one instance, whose stderr goes to `stderr`.
    ///
    /// Runs no guest code: instantiating a component is the first part of its
    /// [`Instance::poll_exit`], so that connect timeout and Close cover it.
    ///
    /// Once `cancel` is cancelled it is ready soon, in whatever way: what cannot be
    /// given up is finished, and ended by whoever gets it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends whatever it had started, a moment later.
    fn launch(
        &self,
        stderr: StderrLog,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<Launched, LaunchError>>;

    /// Returns the wire that what it starts speaks on.
    fn wire(&self) -> Wire {
        Wire::Stdio
    }
}

/// How a plugin and its host speak with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Wire {
    /// In frames over the plugin's stdin and stdout: this project's own.
    #[default]
    Stdio,
    /// By gRPC over a port of this machine: that of `cipd`, for plugins made for it.
    Grpc,
}

/// A plugin that was started.
pub(crate) struct Launched {
    /// What the plugin reads; dropping it is the polite "please finish".
    pub(crate) stdin: Pin<Box<dyn AsyncWrite + Send>>,
    /// What the plugin writes. Once [`Instance::poll_exit`] is ready, it yields what
    /// was written before the exit, then ends, and is never pending again.
    pub(crate) stdout: Pin<Box<dyn AsyncRead + Send>>,
    /// Ends it.
    pub(crate) instance: Box<dyn Instance>,
}

/// A running plugin. Dropping it kills.
pub(crate) trait Instance: Send {
    /// Waits for the end, and until then takes care of stderr.
    ///
    /// For a component this *is* the guest: not polling it pauses it. Must not be
    /// called again once it was ready.
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit>;

    /// Tells whether the plugin does nothing more, though `poll_exit` may take a moment
    /// to be ready.
    fn is_exiting(&self) -> bool {
        false
    }

    /// Waits, once `poll_exit` was ready, until nothing else is left, either. Must not
    /// be called again once it was ready.
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<Remains> {
        Poll::Ready(Remains::Nothing)
    }

    /// Makes `poll_exit` ready soon, with [`Exit::KilledByHost`] unless it ended before.
    fn kill(&mut self);
}

/// What is left of a plugin after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remains {
    /// Nothing, as far as anybody can tell.
    Nothing,
    /// Processes, maybe: there are some that must not be killed, or nobody could look.
    Processes,
}

/// How a plugin ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It was closed before it was started.
    NeverStarted,
    /// It ended by itself and said that all is well.
    Success,
    /// It ended by itself, and not well.
    Failed {
        /// The reference's words: `exit status 3`, `signal: killed`, `trap: ...`.
        words: Arc<str>,
        /// What kind of end it was: a crash, a trap, or a limit that was exceeded.
        kind: ErrorKind,
    },
    /// It had to be killed.
    KilledByHost,
}

impl Exit {
    /// Describes an end that was not a success.
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
    /// The host will not start anything any more.
    #[error("failed to launch the plugins grpc server: the plugins host is already closed")]
    HostClosed,
    /// The server that the plugin was to call does not serve.
    #[error("failed to launch the plugins grpc server: {0}")]
    Server(Arc<io::Error>),
    /// The plugin was closed before it was started.
    #[error("failed to launch the plugin: it was closed meanwhile")]
    Cancelled,
    /// The system did not start the executable.
    #[error("failed to launch the plugin: {words}")]
    Spawn {
        /// The reference's words for it.
        words: String,
        /// The system's own.
        source: io::Error,
    },
    /// The guard that was to start the executable did not even try.
    #[error("failed to launch the plugin: its guard `{}` does not work", program.display())]
    Guard {
        /// The program that was to be the guard.
        program: PathBuf,
        /// What became of it.
        source: io::Error,
    },
    /// The file of a component cannot be read.
    #[error("failed to launch the plugin: cannot read the component `{}`", path.display())]
    ComponentFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The bytes are not a component that can be run.
    #[error("failed to launch the plugin: {0}")]
    Component(String),
    /// The component asks for what no component gets.
    #[error(
        "failed to launch the plugin: the component imports what is not part of WASI 0.2: {}",
        names.join(", ")
    )]
    Imports {
        /// Every such import, as the component names it.
        names: Vec<String>,
    },
}

impl LaunchError {
    /// Returns the kind of the error.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Imports { .. } => ErrorKind::Import,
            _ => ErrorKind::Launch,
        }
    }
}
