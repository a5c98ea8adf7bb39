//! Kinds of errors.

use std::fmt;

/// The kind of an error, with a stable name. Shows an operator where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `launch`: the plugin could not be started. Check its path, its permissions and, for a
    /// component, its file.
    Launch,
    /// `connect-timeout`: the plugin was started and did not connect in time. Check its stderr
    /// and whether it uses the configured wire; raise the connect timeout on a slow machine.
    ConnectTimeout,
    /// `version`: the plugin speaks another version of the protocol. Rebuild it with a matching
    /// SDK, or update the host.
    Version,
    /// `protocol`: the plugin broke the protocol. Report it to the plugin's author; often it
    /// prints to stdout.
    Protocol,
    /// `stall`: the plugin stopped in the middle of a frame. Report it to the plugin's author.
    Stall,
    /// `crash`: the plugin exited by itself, or closed its output. Read its stderr and its exit
    /// status.
    Crash,
    /// `timeout`: the plugin did not settle a check in time. Check what it waits for, or raise
    /// the check timeout.
    Timeout,
    /// `resource`: the plugin exceeded a limit. Raise the limit that the text names, or report
    /// it to the plugin's author.
    Resource,
    /// `trap`: the component trapped. Report the backtrace in its stderr to the plugin's author.
    Trap,
    /// `import`: the component imports what the sandbox does not provide. Rebuild it as a
    /// WASI 0.2 command.
    Import,
    /// `denied`: the policy forbids the pin. Nothing failed.
    Denied,
    /// `policy-error`: the plugin could not decide. Its message says why.
    PolicyError,
    /// `overload`: too many checks were pending. Check again later, or check fewer pins at once.
    Overload,
    /// `aborted`: the plugin was closed. Check again with a plugin that is not closed.
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
