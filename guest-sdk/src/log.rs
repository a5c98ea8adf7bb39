//! Events of `tracing` as log lines of the host.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};

use admission_proto::wire::plugin::LogRequest;
use admission_proto::wire::stdio::{PluginFrame, plugin_frame::Frame};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::conversation::Conversation;
use crate::outbox::Kind;
use crate::{at_hand, platform, verdict};

/// Longest line, in bytes; hosts cut there as well.
const MAX_LINE: usize = 16 << 10;

/// Returns the layer that sends events to the host, for a subscriber of your own.
///
/// [`run_plugin`](crate::run_plugin) installs it when no global subscriber is set.
/// Events from before `run_plugin` are dropped. The layer passes only the levels that the
/// host asks for, without limiting other layers.
#[must_use]
pub fn log_layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    HostLog.with_filter(Asked)
}

/// Sends a line to the host as it is, for a program that passes on what others log.
///
/// What an event of [`tracing`] with this message and no fields does, but also from within
/// a layer, where the dispatcher may drop events. Dropped likewise before
/// [`run_plugin`](crate::run_plugin), and if the host does not ask for this level.
pub fn log_line(level: Level, line: impl Into<String>) {
    if let Some(current) = Conversation::current()
        && level <= current.threshold().level()
    {
        send(current, level, line.into());
    }
}

/// Makes events go to the host unless the program sends them elsewhere.
pub(crate) fn install() {
    // An error says that the program has its own subscriber, which is its choice.
    let _ = set_global_default(Registry::default().with(log_layer()));
}

/// The levels of the protocol, the most severe first. It has none for trace events.
const SEVERITIES: [(&str, Level); 4] = [
    ("error", Level::ERROR),
    ("warning", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
];

/// Where `info` stands among them: what holds until the host asks, or if it asks for
/// something unknown.
const INFO: usize = 2;

/// The least severe level that the host wants to hear.
#[derive(Debug)]
pub(crate) struct Threshold(AtomicUsize);

impl Threshold {
    /// Takes what the host asks for.
    pub(crate) fn set(&self, severity: &str) {
        let asked = SEVERITIES.iter().position(|&(name, _)| name == severity);
        self.0.store(asked.unwrap_or(INFO), Ordering::Relaxed);
        // Call sites remember whether they are heard.
        tracing::callsite::rebuild_interest_cache();
    }

    fn level(&self) -> Level {
        SEVERITIES[self.0.load(Ordering::Relaxed)].1
    }
}

impl Default for Threshold {
    fn default() -> Self {
        Self(AtomicUsize::new(INFO))
    }
}

/// Passes what the host asks for.
struct Asked;

impl<S> Filter<S> for Asked {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        *metadata.level() <= asked()
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if *metadata.level() <= asked() {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(asked().into())
    }
}

fn asked() -> Level {
    Conversation::current().map_or(Level::INFO, |current| current.threshold().level())
}

/// Sends events to the host.
struct HostLog;

impl<S: Subscriber> Layer<S> for HostLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(current) = Conversation::current() else {
            return;
        };
        let mut line = Line::default();
        event.record(&mut line);
        send(current, *event.metadata().level(), line.finish());
    }
}

/// Queues a line for the host, when there is room.
fn send(conversation: &Conversation, level: Level, line: String) {
    let Some((severity, _)) = SEVERITIES.iter().find(|(_, its)| *its == level) else {
        return;
    };
    let frame = frame(severity, line, conversation.frame_limit());
    platform::wait_for_room(conversation);
    conversation
        .outbox()
        .push(&frame, Kind::Line(at_hand::get()));
}

/// Returns the frame of one line, cut as needed to be within `limit`.
pub(crate) fn frame(severity: &str, mut message: String, limit: usize) -> PluginFrame {
    /// Tags and lengths, and the severity.
    const AROUND: usize = 32;
    verdict::cut(&mut message, MAX_LINE.min(limit.saturating_sub(AROUND)));
    PluginFrame {
        frame: Some(Frame::Log(LogRequest {
            severity: severity.to_owned(),
            message,
        })),
    }
}

/// An event as the reference spells it: `text :: {"key":value, ...}`.
#[derive(Debug, Default)]
struct Line {
    text: String,
    fields: String,
}

impl Line {
    fn finish(self) -> String {
        let Self { text, fields } = self;
        match (text.is_empty(), fields.is_empty()) {
            (_, true) => text,
            (true, false) => format!(":: {{{fields}}}"),
            (false, false) => format!("{text} :: {{{fields}}}"),
        }
    }

    fn push(&mut self, field: &Field, value: impl fmt::Display) {
        let comma = if self.fields.is_empty() { "" } else { ", " };
        write!(self.fields, "{comma}{}:{value}", Quoted(field.name())).expect("a string takes it");
    }

    fn text(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.text.push_str(value);
        } else {
            self.push(field, Quoted(value));
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.push(field, value);
        } else {
            // JSON has no spelling for it.
            self.push(field, Quoted(&value.to_string()));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &value.to_string());
    }
}

/// Shows text as a JSON string.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use admission_proto::frame::HOST_LIMIT;
    use admission_proto::wire::Message as _;

    use super::*;

    #[derive(Default, Clone)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut line = Line::default();
            event.record(&mut line);
            self.0.lock().expect("not poisoned").push(line.finish());
        }
    }

    #[test]
    fn a_line_is_the_text_and_then_the_fields_as_json() {
        let lines = Lines::default();
        let subscriber = Registry::default().with(lines.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("plain {}", 1);
            tracing::info!(package = "a/b", entries = 3, ok = true, "counted");
            tracing::info!(share = 0.5, none = f64::NAN, "odd");
            tracing::info!(text = "q\"\\\n\u{1b}", debug = ?Some(1), "escaped");
            tracing::info!(only = 1);
        });
        let lines = lines.0.lock().expect("not poisoned");
        assert_eq!(
            *lines,
            [
                "plain 1",
                r#"counted :: {"package":"a/b", "entries":3, "ok":true}"#,
                r#"odd :: {"share":0.5, "none":"NaN"}"#,
                r#"escaped :: {"text":"q\"\\\n\u001b", "debug":"Some(1)"}"#,
                r#":: {"only":1}"#,
            ]
        );
    }

    #[test]
    fn a_long_line_is_cut_to_16_kib() {
        let Some(Frame::Log(line)) = frame("info", "x".repeat(20_000), HOST_LIMIT).frame else {
            panic!("no line");
        };
        assert_eq!(line.message.len(), MAX_LINE);
        assert!(line.message.ends_with("x(truncated, 20000 bytes)"));
    }

    #[test]
    fn a_line_fits_the_hosts_frames() {
        let frame = frame("warning", "x".repeat(20_000), 1000);
        assert!((900..=1000).contains(&frame.encoded_len()));
    }

    #[test]
    fn the_threshold_is_info_unless_the_host_asks_for_a_level_that_there_is() {
        let threshold = Threshold::default();
        assert_eq!(threshold.level(), Level::INFO);
        for (severity, level) in SEVERITIES {
            threshold.set(severity);
            assert_eq!(threshold.level(), level);
        }
        threshold.set("trace");
        assert_eq!(threshold.level(), Level::INFO);
    }
}
