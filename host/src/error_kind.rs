//! What kinds of errors there are.

use std::fmt;

/// A stable name for what kind of error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The plugin could not be started.
    Launch,
    /// The plugin was started and did not connect in time.
    ConnectTimeout,
    /// The plugin speaks another version of the protocol.
    Version,
    /// The plugin broke the protocol.
    Protocol,
    /// The plugin stopped in the middle of a frame.
    Stall,
    /// The plugin ended by itself, or closed its output.
    Crash,
    /// The plugin did not answer one check in time.
    Timeout,
    /// The plugin exceeded a limit.
    Resource,
    /// The component trapped.
    Trap,
    /// The component imports what it cannot get.
    Import,
    /// The plugin decided against the pin.
    Denied,
    /// The plugin answered with a status that is no decision.
    PolicyError,
    /// Too many checks were pending.
    Overload,
    /// The plugin was closed.
    Aborted,
}

impl ErrorKind {
    /// Returns the name, which never changes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::ConnectTimeout => "connect-timeout",
            Self::Version => "version",
            Self::Protocol => "protocol",
            Self::Stall => "stall",
            Self::Crash => "crash",
            Self::Timeout => "timeout",
            Self::Resource => "resource",
            Self::Trap => "trap",
            Self::Import => "import",
            Self::Denied => "denied",
            Self::PolicyError => "policy-error",
            Self::Overload => "overload",
            Self::Aborted => "aborted",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
