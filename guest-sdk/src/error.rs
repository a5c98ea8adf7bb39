//! Why the run loop failed.

use std::error::Error;
use std::{fmt, io};

use admission_proto::Status;

/// Why the run loop ended before the host closed the plugin.
///
/// The `Debug` form is the message and its causes, because a `main` that returns the error
/// prints that.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The calling thread belongs to a tokio runtime, which must not be blocked.
    #[error("`run_plugin` was called inside a tokio runtime: await `run_plugin_async` there")]
    InsideRuntime,
    /// The plugin has run before. A process has one stdin and one stdout, so it can run one
    /// plugin.
    #[error("a plugin can run only once in a process")]
    AlreadyRan,
    /// The host speaks gRPC, and the plugin was built without the feature `grpc` or as a
    /// component.
    #[error("the host speaks the gRPC wire, which this plugin does not support")]
    GrpcWire,
    /// The handshake line is not valid.
    #[error("failed to read the handshake message")]
    Handshake(#[source] Box<dyn Error + Send + Sync>),
    /// The plugin cannot connect to the host.
    #[error("failed to connect to the plugin host at 127.0.0.1:{port}")]
    #[non_exhaustive]
    Connect {
        /// The port in the handshake.
        port: u16,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The host ended the stream of admissions with an error.
    #[error("the host ended the stream of admissions with {}", .0.code)]
    Stream(#[source] Status),
    /// The gRPC connection was lost.
    #[error("lost the connection to the host (pending checks: {pending})")]
    #[non_exhaustive]
    Lost {
        /// Number of checks that remain pending.
        pending: usize,
        /// The cause.
        #[source]
        source: Status,
    },
    /// The host rejected a verdict.
    #[error("the host rejected a verdict (pending checks: {pending})")]
    #[non_exhaustive]
    Verdict {
        /// Number of checks that remain pending.
        pending: usize,
        /// The host's status.
        #[source]
        source: Status,
    },
    /// The host sent bytes that are not a frame, or ended stdin inside a frame.
    #[error("the host broke the protocol with {seen}")]
    #[non_exhaustive]
    Frame {
        /// The first bytes of the broken frame and of what follows it, quoted.
        seen: String,
        /// The error in them.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The host sent a frame at a time when the protocol does not allow it.
    #[error("the host broke the protocol with {0}")]
    OutOfTurn(&'static str),
    /// Stdin and stdout cannot be redirected.
    #[error("cannot redirect stdin and stdout")]
    Stdio(#[source] io::Error),
    /// A thread or a runtime cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// Stdin cannot be read.
    #[error("cannot read from the host")]
    Read(#[source] io::Error),
    /// Stdout cannot be written.
    #[error("cannot write to the host (pending checks: {pending})")]
    #[non_exhaustive]
    Write {
        /// Number of checks that remain pending.
        pending: usize,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_main_that_returns_an_error_prints_the_causes_too() {
        let error = RunError::Write {
            pending: 3,
            source: io::Error::other("gone"),
        };
        assert_eq!(
            format!("{error:?}"),
            "cannot write to the host (pending checks: 3): gone"
        );
    }
}
