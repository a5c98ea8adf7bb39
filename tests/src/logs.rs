//! Collects what the host logs.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::eventually;

/// One event of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Severity.
    pub level: Level,
    /// Value of the field `plugin`; empty if the event has no such field.
    pub plugin: String,
    /// Value of the field `url`, the URL of the service; empty if the event has no such field.
    pub url: String,
    /// Message of the event.
    pub message: String,
}

/// Collects the events of the host.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<Line>>>);

impl Lines {
    /// Returns the collector of this process. The first call starts it.
    ///
    /// # Panics
    ///
    /// If this process has another global subscriber.
    pub fn collect() -> &'static Self {
        static LINES: OnceLock<Lines> = OnceLock::new();
        LINES.get_or_init(|| {
            let lines = Self::default();
            let subscriber = Registry::default().with(lines.clone());
            tracing::subscriber::set_global_default(subscriber).expect("the only collector");
            lines
        })
    }

    /// Waits until a plugin of this name has logged this message.
    pub async fn wait_for(&self, plugin: &str, message: &str) {
        let there = |line: &Line| line.message == message;
        eventually(|| self.of_plugin(plugin).iter().any(there)).await;
    }

    /// Returns the events so far about plugins of this name. An empty name returns the events
    /// that are not about a plugin.
    #[must_use]
    pub fn of_plugin(&self, plugin: &str) -> Vec<Line> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .filter(|line| line.plugin == plugin)
            .cloned()
            .collect()
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !event.metadata().target().starts_with("admission_host") {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = Line {
            level: *event.metadata().level(),
            plugin: fields.plugin,
            url: fields.url,
            message: fields.message,
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }
}

#[derive(Default)]
struct Fields {
    plugin: String,
    url: String,
    message: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "plugin" {
            value.clone_into(&mut self.plugin);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "url" => self.url = format!("{value:?}"),
            "message" => self.message = format!("{value:?}"),
            _ => {}
        }
    }
}
