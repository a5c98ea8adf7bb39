//! What a guard tells its host: at most two messages of a fixed size.
//!
//! The host tells its guard nothing but the end of the stream, which it cannot fail to
//! say: its death says the same.

use super::super::ended::Ended;

/// Length of a report, in bytes: what it is, and a number.
pub(in super::super) const LEN: usize = 5;

/// What a guard has to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Report {
    /// The plugin runs, as this process.
    Started(i32),
    /// The system did not start the plugin, for this reason. Comes last.
    NotStarted(i32),
    /// The guard itself cannot do its work, for this reason. Comes last.
    Unfit(i32),
    /// The plugin has ended. Comes last; processes of the plugin may be left until the
    /// guard itself has ended.
    Ended(Ended),
}

impl Report {
    pub(super) fn encode(self) -> [u8; LEN] {
        let (kind, number) = match self {
            Self::Started(pid) => (1, pid),
            Self::NotStarted(errno) => (2, errno),
            Self::Unfit(errno) => (3, errno),
            Self::Ended(Ended::Exited(code)) => (4, code),
            Self::Ended(Ended::Signaled(signal)) => (5, signal),
            Self::Ended(Ended::Dumped(signal)) => (6, signal),
        };
        let [a, b, c, d] = number.to_le_bytes();
        [kind, a, b, c, d]
    }

    /// Returns `None` for what no guard of this version says.
    pub(in super::super) fn decode([kind, number @ ..]: [u8; LEN]) -> Option<Self> {
        let number = i32::from_le_bytes(number);
        Some(match kind {
            1 => Self::Started(number),
            2 => Self::NotStarted(number),
            3 => Self::Unfit(number),
            4 => Self::Ended(Ended::Exited(number)),
            5 => Self::Ended(Ended::Signaled(number)),
            6 => Self::Ended(Ended::Dumped(number)),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        for report in [
            Report::Started(42),
            Report::NotStarted(libc::ENOENT),
            Report::Unfit(libc::EMFILE),
            Report::Ended(Ended::Exited(255)),
            Report::Ended(Ended::Signaled(libc::SIGKILL)),
            Report::Ended(Ended::Dumped(libc::SIGABRT)),
        ] {
            assert_eq!(Report::decode(report.encode()), Some(report));
        }
    }

    #[test]
    fn what_no_guard_says_is_no_report() {
        assert_eq!(Report::decode([0; LEN]), None);
        assert_eq!(Report::decode(*b"hello"), None);
    }
}
