//! From the outcome of a check to what the client is answered.

use std::fmt::Display;

use admission_host::{CheckError, ErrorKind};
use admission_sdk::{Code, Status};

/// Returns what the client is told of a check that did not end in an admission.
///
/// What the plugin has answered passes unchanged. All else says that nothing was decided,
/// so it is neither OK nor `FAILED_PRECONDITION`.
pub(super) fn status(error: &CheckError) -> Status {
    match error {
        CheckError::Denied { status, .. } | CheckError::PolicyError { status, .. } => {
            Status::clone(status)
        }
        failure => failed(failure.kind(), failure),
    }
}

/// Returns what the client is told of a question about nothing that there can be.
pub(super) fn senseless(error: &dyn Display) -> Status {
    failed(ErrorKind::Protocol, error)
}

fn failed(kind: ErrorKind, text: &dyn Display) -> Status {
    let code = match kind {
        ErrorKind::Timeout => Code::DEADLINE_EXCEEDED,
        ErrorKind::Overload | ErrorKind::Resource => Code::RESOURCE_EXHAUSTED,
        ErrorKind::Aborted => Code::CANCELLED,
        _ => Code::INTERNAL,
    };
    Status::new(code, format!("{kind}: {text}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use admission_sdk::Detail;

    use super::*;

    #[test]
    fn what_the_plugin_answers_passes_unchanged() {
        let detail = Detail {
            type_url: "type.example.com/detail".into(),
            value: vec![0, 159, 255],
        };
        let plugin: Arc<str> = "policy".into();
        let denial = Arc::new(Status::denied("no\n\u{1b}[2J").with_detail(detail));
        let denied = CheckError::Denied {
            plugin: Arc::clone(&plugin),
            status: Arc::clone(&denial),
        };
        assert_eq!(status(&denied), *denial);
        let odd = Arc::new(Status::new(Code::from(12345), ""));
        let rejected = CheckError::PolicyError {
            plugin,
            status: Arc::clone(&odd),
        };
        assert_eq!(status(&rejected), *odd);
    }

    #[test]
    fn a_failure_is_told_by_its_class_and_its_text() {
        let plugin: Arc<str> = "policy".into();
        let failures = [
            (
                CheckError::TimedOut {
                    plugin: Arc::clone(&plugin),
                    after: Duration::from_millis(1500),
                },
                Code::DEADLINE_EXCEEDED,
                "timeout: the admission plugin did not answer within 1.5s",
            ),
            (
                CheckError::Overloaded {
                    plugin: Arc::clone(&plugin),
                    pending: 7,
                },
                Code::RESOURCE_EXHAUSTED,
                "overload: too many admission checks are pending: 7",
            ),
            (
                CheckError::Aborted { plugin },
                Code::CANCELLED,
                "aborted: the admission plugin is terminating",
            ),
        ];
        for (failure, code, text) in failures {
            assert_eq!(status(&failure), Status::new(code, text));
        }
    }

    #[test]
    fn no_failure_is_told_as_a_decision() {
        for (kind, code) in [
            (ErrorKind::Launch, Code::INTERNAL),
            (ErrorKind::ConnectTimeout, Code::INTERNAL),
            (ErrorKind::Version, Code::INTERNAL),
            (ErrorKind::Protocol, Code::INTERNAL),
            (ErrorKind::Stall, Code::INTERNAL),
            (ErrorKind::Crash, Code::INTERNAL),
            (ErrorKind::Timeout, Code::DEADLINE_EXCEEDED),
            (ErrorKind::Resource, Code::RESOURCE_EXHAUSTED),
            (ErrorKind::Trap, Code::INTERNAL),
            (ErrorKind::Import, Code::INTERNAL),
            (ErrorKind::Overload, Code::RESOURCE_EXHAUSTED),
            (ErrorKind::Aborted, Code::CANCELLED),
        ] {
            assert_eq!(failed(kind, &"text").code, code, "{kind}");
        }
    }
}
