//! What the client is told in log lines: the plugin's own, as they are, and ours.

use std::fmt::{Debug, Write as _};

use admission_host::LogLevel;
use admission_sdk::{log_layer, log_line};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// What the plugin is asked to log. A client that speaks gRPC never says what it wants.
pub(super) const LEVEL: LogLevel = LogLevel::Info;

/// The target of events that are lines of the plugin.
const PLUGIN: &str = "admission_host::plugin";

/// Sends what is logged to the client, for the whole process.
pub(super) fn install() {
    let ours = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("admit", LevelFilter::INFO)
        .with_target("admission_host", LevelFilter::INFO)
        // Told by `admit` itself, and once.
        .with_target("admission_host::end", LevelFilter::OFF)
        .with_target(PLUGIN, LevelFilter::OFF);
    let plugins = Targets::new().with_target(PLUGIN, LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(log_layer().with_filter(ours))
        .with(PassOn.with_filter(plugins))
        .init();
}

/// Says what the plugin says, without what the host adds to it.
struct PassOn;

impl<S: Subscriber> Layer<S> for PassOn {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        log_line(*event.metadata().level(), line.finish());
    }
}

/// A line of the plugin, and how much the host has left out.
#[derive(Default)]
struct Line {
    text: String,
    left_out: Option<(&'static str, u64)>,
}

impl Line {
    /// Spells it as other lines are spelled that have fields.
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

    /// Keeps what would be passed on.
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
    fn a_line_is_what_the_plugin_said_and_what_was_left_out_of_it() {
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
