//! From a plugin's status to the outcome of a check.

use std::sync::Arc;

use admission_proto::{Code, Status};

use super::promise::Outcome;
use crate::error::CheckError;
use crate::session::bound;

/// Longest message of a status that is kept, in bytes: a promise keeps it until the
/// cache is cleared.
const MAX_MESSAGE: usize = 4 << 10;

/// Most bytes of details that are kept.
const MAX_DETAILS: usize = 4 << 10;

/// Returns what a check ends with when the plugin answers `status`, made short if the
/// outcome will be `kept`.
pub(super) fn outcome(plugin: &Arc<str>, mut status: Status, kept: bool) -> Outcome {
    if status.code == Code::OK {
        return Ok(());
    }
    if kept {
        bound(&mut status, MAX_MESSAGE, MAX_DETAILS);
    }
    let code = status.code;
    let plugin = Arc::clone(plugin);
    let status = Arc::new(status);
    Err(match code {
        Code::FAILED_PRECONDITION => CheckError::Denied { plugin, status },
        _ => CheckError::PolicyError { plugin, status },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use admission_proto::Detail;

    fn error(status: Status) -> CheckError {
        outcome(&"policy".into(), status, true).expect_err("not OK")
    }

    #[test]
    fn only_ok_admits_and_only_failed_precondition_denies() {
        assert!(outcome(&"policy".into(), Status::new(Code::OK, "ignored"), true).is_ok());
        assert!(matches!(
            error(Status::denied("no")),
            CheckError::Denied { .. }
        ));
        for code in [1, 10, 12345, -1] {
            let error = error(Status::new(code.into(), "odd"));
            assert!(matches!(error, CheckError::PolicyError { .. }));
            assert_eq!(error.code().map(Code::number), Some(code));
        }
    }

    #[test]
    fn what_is_too_long_to_be_kept_is_cut_visibly() {
        let detail = Detail {
            type_url: "t".into(),
            value: vec![0; MAX_DETAILS],
        };
        let status = Status::denied("x".repeat(10_000)).with_detail(detail);
        let text = error(status).to_string();
        assert!(text.ends_with("xx (truncated, 10000 bytes) (details dropped, 4097 bytes)"));
        assert!(text.len() < MAX_MESSAGE + 100);
    }

    #[test]
    fn what_is_not_kept_stays_as_it_is() {
        let long = Status::denied("x".repeat(10_000));
        let error = outcome(&"policy".into(), long.clone(), false).expect_err("not OK");
        assert!(matches!(error, CheckError::Denied { status, .. } if *status == long));
    }
}
