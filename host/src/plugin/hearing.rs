//! What a plugin says to immediate effect, whatever task hears it.

use std::sync::{Arc, Mutex, PoisonError};

use admission_proto::Status;

use super::checks::{CheckId, Taken};
use super::core::Core;
use super::life::Stray;
use super::verdict;
use crate::log::{LogLevel, PluginLog};
use crate::session::Hearer;

/// Stray verdicts between two lines about them.
const STRAYS_PER_LINE: u64 = 1_000;

/// Hears one plugin: applies its verdicts and logs its lines.
pub(super) struct Hearing {
    core: Arc<Core>,
    log: Mutex<PluginLog>,
}

impl Hearing {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let log = PluginLog::new(Arc::clone(&core.name), core.services.plugin_log_level);
        Self {
            core,
            log: Mutex::new(log),
        }
    }

    /// Settles the check that the plugin calls `admission_id`, and returns its ID; a
    /// verdict on anything else decides nothing, and is counted.
    pub(super) fn settle(&self, admission_id: &str, status: Status) -> Option<CheckId> {
        let id = CheckId::from_wire(admission_id);
        match self.core.life.decide(id) {
            Ok(Taken { resolver, origin }) => {
                let kept = origin.is_none();
                resolver.resolve(verdict::outcome(&self.core.name, status, kept));
                id
            }
            Err(Stray { before }) => {
                if before.is_multiple_of(STRAYS_PER_LINE) {
                    let (plugin, strays) = (&*self.core.name, before + 1);
                    tracing::warn!(
                        plugin,
                        strays,
                        "ignored a verdict on a check that is not undecided"
                    );
                }
                None
            }
        }
    }

    /// Says how many lines were dropped, now that there will be no more.
    pub(super) fn finish(&self) {
        self.log().report_dropped();
    }

    fn log(&self) -> std::sync::MutexGuard<'_, PluginLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hearer for Hearing {
    fn logged(&self, level: LogLevel, message: &str) {
        self.log().line(level, message);
    }

    fn resolved(&self, admission_id: &str, status: Status) -> bool {
        self.settle(admission_id, status).is_some()
    }
}
