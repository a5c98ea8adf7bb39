//! Sends `tracing` events to the host as log lines.

use std::fmt::{self, Write as _};

use admission_proto::wire::plugin::LogRequest;
use admission_proto::{LogLevel, truncate};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::check::Check;
use crate::outbox::Outbound;
use crate::platform;
use crate::session::Session;

/// Maximum length of a line, in bytes. Hosts cut lines at the same length.
const MAX_LINE: usize = 16 << 10;

/// Returns the layer that sends events to the host, for a subscriber of your own.
///
/// [`run_plugin`](crate::run_plugin) installs it when the program has set no global
/// subscriber. Events before `run_plugin` are dropped. The layer passes only the levels that
/// the host asks for, and does not limit other layers.
///
/// ```
/// use tracing_subscriber::layer::SubscriberExt as _;
///
/// let subscriber = tracing_subscriber::registry().with(admission_sdk::log_layer());
/// tracing::subscriber::set_global_default(subscriber)?;
/// # Ok::<(), tracing::subscriber::SetGlobalDefaultError>(())
/// ```
#[must_use]
pub fn log_layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    HostLayer.with_filter(HostLevel)
}

/// Sends a line to the host unchanged, for a program that forwards the log lines of others.
///
/// Acts like a [`tracing`] event with this message and no fields. Unlike an event, it also
/// works inside a layer, where `tracing` may drop events. A line is dropped if it is sent before
/// [`run_plugin`](crate::run_plugin), or if the host does not ask for its level.
pub fn log_line(level: Level, line: impl Into<String>) {
    if is_enabled(level) {
        send(level, &line.into());
    }
}

/// Installs the layer as the global subscriber, unless the program has one.
pub(crate) fn install() {
    // An error means that the program has chosen its own subscriber.
    let _ = set_global_default(Registry::default().with(log_layer()));
}

/// Passes the levels that the host asks for.
struct HostLevel;

impl<S> Filter<S> for HostLevel {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        is_enabled(*metadata.level())
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_enabled(*metadata.level()) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match least_level() {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warning => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        })
    }
}

/// Sends events to the host.
struct HostLayer;

impl<S: Subscriber> Layer<S> for HostLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        send(*event.metadata().level(), &line.finish());
    }
}

fn least_level() -> LogLevel {
    Session::current().map_or(LogLevel::Info, |session| session.log_level())
}

fn is_enabled(level: Level) -> bool {
    log_level(level).is_some_and(|level| level >= least_level())
}

/// Returns the host's level for an event. The host has no level for trace events.
fn log_level(level: Level) -> Option<LogLevel> {
    match level {
        Level::ERROR => Some(LogLevel::Error),
        Level::WARN => Some(LogLevel::Warning),
        Level::INFO => Some(LogLevel::Info),
        Level::DEBUG => Some(LogLevel::Debug),
        _ => None,
    }
}

/// Queues a line for the host. Waits while too many lines are queued.
fn send(level: Level, line: &str) {
    if let (Some(session), Some(level)) = (Session::current(), log_level(level)) {
        let line = build_request(level, line, session.frame_limit());
        platform::wait_for_room(session);
        session.outbox.push(Outbound::Log {
            line,
            admission_id: Check::current().map(|check| check.admission.admission_id.clone()),
        });
    }
}

/// Returns the message for a line, cut so that its frame has at most `frame_limit` bytes.
fn build_request(level: LogLevel, line: &str, frame_limit: usize) -> LogRequest {
    /// Room for tags, lengths and the severity, in bytes.
    const OVERHEAD: usize = 32;
    let limit = MAX_LINE.min(frame_limit.saturating_sub(OVERHEAD));
    LogRequest {
        severity: level.as_str().to_owned(),
        message: truncate(line, limit).into_owned(),
    }
}

/// The text of an event, in the reference's format: `text :: {"key":value, ...}`.
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
        write!(self.fields, "{comma}{}:{value}", Quoted(field.name()))
            .expect("writing to a string cannot fail");
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
            // JSON has no such number.
            self.push(field, Quoted(&value.to_string()));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &value.to_string());
    }
}

/// Displays text as a JSON string.
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
    use admission_proto::wire::stdio::{PluginFrame, plugin_frame::Frame};

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
        let line = build_request(LogLevel::Info, &"x".repeat(20_000), HOST_LIMIT).message;
        assert_eq!(line.len(), MAX_LINE);
        assert!(line.ends_with("x (truncated, 20000 bytes)"));
    }

    #[test]
    fn a_line_is_cut_to_the_hosts_frame_limit() {
        let frame = PluginFrame {
            frame: Some(Frame::Log(build_request(
                LogLevel::Warning,
                &"x".repeat(20_000),
                1000,
            ))),
        };
        assert!((900..=1000).contains(&frame.encoded_len()));
    }
}
