//! The severity of log lines.

use std::fmt;

/// The severity of a log line, from the least to the most severe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[expect(clippy::exhaustive_enums, reason = "the reference has these four")]
pub enum LogLevel {
    /// Helps to debug the plugin.
    Debug,
    /// Reports normal operation.
    #[default]
    Info,
    /// Reports a problem that does not stop the plugin.
    Warning,
    /// Reports a failure.
    Error,
}

impl LogLevel {
    /// Returns the severity on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// Converts a severity of the wire. As in the reference, an unknown one is `Info`.
    #[must_use]
    pub fn from_wire(severity: &str) -> Self {
        match severity {
            "debug" => Self::Debug,
            "warning" => Self::Warning,
            "error" => Self::Error,
            _ => Self::Info,
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::LogLevel::{self, Debug, Error, Info, Warning};

    #[test]
    fn an_unknown_severity_is_info() {
        assert_eq!(LogLevel::from_wire("fatal"), Info);
        assert_eq!(LogLevel::from_wire(""), Info);
        for level in [Debug, Info, Warning, Error] {
            assert_eq!(LogLevel::from_wire(level.as_str()), level);
        }
    }
}
