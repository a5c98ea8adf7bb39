//! What a verdict does: it settles the promise of its check, on the task that received it.
//! Log lines and unknown frames take the same path.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use admission_proto::{Code, LogLevel, Status};

use super::check_cache::{CheckId, Taken};
use super::core::Core;
use super::promise::Outcome;
use crate::error::CheckError;
use crate::log::PluginLog;
use crate::session::{SessionEvents, bound_status};

/// Longest message of a status in a cached promise, in bytes.
const MAX_MESSAGE: usize = 4 << 10;

/// Most bytes of details of a status in a cached promise.
const MAX_DETAILS: usize = 4 << 10;

/// Number of ignored verdicts for which the host logs one line.
const IGNORED_PER_LINE: u64 = 1_000;

/// Applies the verdicts and the log lines of one plugin.
pub(super) struct PluginEvents {
    core: Arc<Core>,
    log: Mutex<PluginLog>,
}

impl PluginEvents {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let log = PluginLog::new(
            Arc::clone(&core.name),
            core.services.settings.plugin_log_level,
        );
        Self {
            core,
            log: Mutex::new(log),
        }
    }

    /// Logs how many lines were dropped. Call it after the last line.
    pub(super) fn report_dropped_lines(&self) {
        self.lock_log().report_dropped();
    }

    fn ignore_verdict(&self) {
        let Some(ignored) = self.core.life.count_ignored_verdict() else {
            return;
        };
        if ignored % IGNORED_PER_LINE == 1 {
            let plugin = &*self.core.name;
            tracing::warn!(
                plugin,
                ignored,
                "ignored a verdict on a check that is not pending"
            );
        }
    }

    fn lock_log(&self) -> MutexGuard<'_, PluginLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionEvents for PluginEvents {
    fn settle(&self, admission_id: &str, status: Status) {
        // Only the check timeout needs to know when the plugin was active.
        let now = self.core.options.check_timeout.map(|_| Instant::now());
        let taken = CheckId::from_wire(admission_id).and_then(|id| self.core.life.take(id, now));
        match taken {
            Some(Taken { resolver, origin }) => {
                let cached = origin.is_none();
                resolver.resolve(outcome(&self.core.name, status, cached));
            }
            None => self.ignore_verdict(),
        }
    }

    fn log(&self, level: LogLevel, message: &str) {
        self.lock_log().line(level, message);
    }

    fn count_unknown_frame(&self) {
        self.core.life.count_unknown_frame();
    }
}

/// Converts the verdict of a plugin into the outcome of a check. A `cached` outcome is
/// bounded in size, because it stays in memory until the cache is cleared.
pub(super) fn outcome(plugin: &Arc<str>, mut status: Status, cached: bool) -> Outcome {
    if status.code == Code::OK {
        return Ok(());
    }
    if cached {
        bound_status(&mut status, MAX_MESSAGE, MAX_DETAILS);
    }
    Err(CheckError::from_status(Arc::clone(plugin), status))
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
    fn a_cached_status_is_cut_visibly() {
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
    fn an_uncached_status_is_not_cut() {
        let long = Status::denied("x".repeat(10_000));
        let error = outcome(&"policy".into(), long.clone(), false).expect_err("not OK");
        assert!(matches!(error, CheckError::Denied { status, .. } if *status == long));
    }
}
