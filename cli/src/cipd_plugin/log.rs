//! Sends log lines to the client: those of the policy, unchanged, and those of `admit`.

use std::fmt::{Debug, Write as _};

use admission_host::LogLevel;
use admission_sdk::{log_layer, log_line};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The level at which the policy logs. It is fixed, because a gRPC client does not send the
/// level that it wants.
pub(super) const LEVEL: LogLevel = LogLevel::Info;

/// The target of events that are log lines of the policy.
const POLICY: &str = "admission_host::plugin";

/// Sends the events of the whole process to the client.
pub(super) fn install() {
    let admit = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("admit", LevelFilter::INFO)
        .with_target("admission_host", LevelFilter::INFO)
        // The forwarder logs the failure of the policy itself.
        .with_target("admission_host::end", LevelFilter::OFF)
        .with_target(POLICY, LevelFilter::OFF);
    let policy = Targets::new().with_target(POLICY, LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(log_layer().with_filter(admit))
        .with(PolicyLines.with_filter(policy))
        .init();
}

/// Sends the lines of the policy, without the fields that the host adds.
struct PolicyLines;

impl<S: Subscriber> Layer<S> for PolicyLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        log_line(*event.metadata().level(), line.finish());
    }
}

/// A line of the policy, and the field with which the host reports omitted text.
#[derive(Default)]
struct Line {
    text: String,
    left_out: Option<(&'static str, u64)>,
}

impl Line {
    /// Formats the line like the SDK formats one with a field.
    fn finish(self) -> String {
        match self.left_out {
            None => self.text,
            Some((what, count)) => format!("{} :: {{\"{what}\":{count}}}", self.text),
        }
    }
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.left_out = Some((field.name(), value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            write!(self.text, "{value:?}").expect("a string takes it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Collects the lines instead of sending them.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut line = Line::default();
            event.record(&mut line);
            self.0.lock().expect("not poisoned").push(line.finish());
        }
    }

    #[test]
    fn a_line_has_its_text_and_a_count_of_omitted_text() {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::registry().with(lines.clone());
        tracing::subscriber::with_default(subscriber, || {
            let plugin = "policy";
            tracing::info!(plugin, "one {}", 1);
            tracing::info!(plugin, cut_bytes = 3_usize, "long");
            tracing::warn!(plugin, dropped = 7_u64, "dropped log lines of the plugin");
        });
        assert_eq!(
            *lines.0.lock().expect("not poisoned"),
            [
                "one 1",
                r#"long :: {"cut_bytes":3}"#,
                r#"dropped log lines of the plugin :: {"dropped":7}"#,
            ]
        );
    }
}
