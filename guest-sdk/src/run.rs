//! The run loop's door, and what can go wrong behind it.

use std::error::Error;
use std::{fmt, io};

use admission_proto::Status;

use crate::{Handler, platform};

/// Runs the plugin until the host ends stdin.
///
/// Takes stdin and stdout, tells the host `version` (free text, for logs), and gives each
/// admission to `handler`. The convention is to return its result from
/// `main`, so that an error is printed and the exit status says so.
///
/// # Errors
///
/// [`RunError`], at once: when the host breaks the protocol, cannot be reached or written
/// to, or ends a conversation with an error, when it is called a second time, and inside a
/// tokio runtime,
#[cfg_attr(
    not(target_arch = "wasm32"),
    doc = "where [`run_plugin_async`](crate::run_plugin_async) is to be used."
)]
#[cfg_attr(target_arch = "wasm32", doc = "which only a native plugin can have.")]
pub fn run_plugin(version: &str, handler: impl Handler) -> Result<(), RunError> {
    platform::run(version, handler)
}

/// Why the run loop ended before the host asked it to.
///
/// Its `Debug` form is the message and its causes, since that is what a `main` that
/// returns it prints.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The calling thread belongs to a tokio runtime, which must not be blocked.
    #[error("`run_plugin` was called inside a tokio runtime: await `run_plugin_async` there")]
    InsideRuntime,
    /// The plugin has been run before; stdin and stdout serve one conversation.
    #[error("a plugin runs once in a process")]
    AlreadyRan,
    /// The host is one of those that talk to plugins over gRPC.
    #[error("the host speaks the gRPC wire, which this plugin does not")]
    GrpcWire,
    /// The host talks to its plugins in frames over stdin and stdout.
    #[error("the host speaks the stdio wire, which this plugin does not")]
    StdioWire,
    /// What the host said of where it listens makes no sense.
    #[error("failed to read the handshake message")]
    Handshake(#[source] Box<dyn Error + Send + Sync>),
    /// Nobody listens where the host is said to.
    #[error("failed to connect to the plugin host at 127.0.0.1:{port}")]
    Connect {
        /// The port that the handshake names.
        port: u16,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The host ended the stream of admissions with an error.
    #[error("the host ended the conversation with {}", .0.code)]
    Stream(#[source] Status),
    /// The host cannot be heard any more, and has not said that it would end.
    #[error("lost the connection to the host, which waits for {owed} verdicts")]
    Lost {
        /// Checks that stay undecided by this.
        owed: usize,
        /// Why it is lost.
        #[source]
        source: Status,
    },
    /// The host did not take a verdict.
    #[error("cannot deliver a verdict to the host, which waits for {owed} of them")]
    Verdict {
        /// Checks that stay undecided by this.
        owed: usize,
        /// Why it failed.
        #[source]
        source: Status,
    },
    /// The host sent what is not a frame, or ended stdin inside one.
    #[error("the host broke the protocol with {seen}")]
    Frame {
        /// The bytes from the broken frame on, quoted and cut.
        seen: String,
        /// What is wrong with them.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The host sent a frame that has no place where it stands.
    #[error("the host broke the protocol with {0}")]
    OutOfTurn(&'static str),
    /// Stdin and stdout could not be taken.
    #[error("cannot take stdin and stdout")]
    Stdio(#[source] io::Error),
    /// A thread or the runtime of the handlers could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// Reading from the host failed.
    #[error("cannot read from the host")]
    Read(#[source] io::Error),
    /// Writing to the host failed.
    #[error("cannot write to the host, which waits for {owed} verdicts")]
    Write {
        /// Checks that stay undecided by this.
        owed: usize,
        /// Why it failed.
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
            owed: 3,
            source: io::Error::other("gone"),
        };
        assert_eq!(
            format!("{error:?}"),
            "cannot write to the host, which waits for 3 verdicts: gone"
        );
    }
}
