//! Log lines of plugins, as tracing events of the host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use admission_proto::{LogLevel, escape};

/// Longest line that is logged, in bytes. A longer one is cut.
pub(crate) const MAX_LINE: usize = 16 << 10;

/// Most lines of one plugin that are logged within one [`WINDOW`].
const LINES_PER_WINDOW: u32 = 200;

/// Interval of the rate limit.
const WINDOW: Duration = Duration::from_secs(1);

/// Logs one plugin's lines: escaped, cut, and limited in rate.
#[derive(Debug)]
pub(crate) struct PluginLog {
    plugin: Arc<str>,
    /// Lines below this level are not logged.
    least: LogLevel,
    window: Instant,
    lines: u32,
    dropped: u64,
}

impl PluginLog {
    pub(crate) fn new(plugin: Arc<str>, least: LogLevel) -> Self {
        Self {
            plugin,
            least,
            window: Instant::now(),
            lines: 0,
            dropped: 0,
        }
    }

    /// Logs one line, unless its level is too low or the rate limit is exceeded.
    ///
    /// The host sends the level to the plugin over stdio only, and a plugin may ignore it.
    pub(crate) fn line(&mut self, level: LogLevel, text: &str) {
        if level < self.least {
            return;
        }
        let now = Instant::now();
        if now.duration_since(self.window) >= WINDOW {
            self.report_dropped();
            self.window = now;
            self.lines = 0;
        }
        if self.lines == LINES_PER_WINDOW {
            if self.dropped == 0 {
                self.announce_drops();
            }
            self.dropped += 1;
            return;
        }
        self.lines += 1;
        let shown = cut(text);
        emit(
            &self.plugin,
            level,
            &escape(shown),
            text.len() - shown.len(),
        );
    }

    /// Logs that lines are being dropped, before their number is known: the subscriber may not
    /// exist any more at the next report.
    fn announce_drops(&self) {
        let plugin = &*self.plugin;
        tracing::warn!(
            target: TARGET,
            plugin,
            "the plugin logs more than {LINES_PER_WINDOW} lines a second; the rest is dropped"
        );
    }

    /// Logs how many lines were dropped since the last report.
    pub(crate) fn report_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let plugin = &*self.plugin;
            tracing::warn!(target: TARGET, plugin, dropped, "dropped log lines of the plugin");
        }
    }
}

/// Target of the events that contain text of a plugin.
const TARGET: &str = "admission_host::plugin";

fn emit(plugin: &str, level: LogLevel, line: &str, cut: usize) {
    let cut_bytes = (cut > 0).then_some(cut);
    macro_rules! event {
        ($level:expr) => {
            tracing::event!(target: TARGET, $level, plugin, cut_bytes, "{line}")
        };
    }
    match level {
        LogLevel::Debug => event!(tracing::Level::DEBUG),
        LogLevel::Info => event!(tracing::Level::INFO),
        LogLevel::Warning => event!(tracing::Level::WARN),
        LogLevel::Error => event!(tracing::Level::ERROR),
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LINE)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_between_characters() {
        let long = "ä".repeat(MAX_LINE);
        assert_eq!(cut(&long).len(), MAX_LINE);
        let odd = format!("a{long}");
        assert_eq!(cut(&odd).len(), MAX_LINE - 1);
    }
}
