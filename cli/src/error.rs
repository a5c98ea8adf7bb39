//! Errors as text for people: the chain of causes, details, and hints on what to do next.

use std::error::Error;
use std::fmt::Write as _;
use std::iter;

use admission_host::CheckError;
use admission_proto::escape;

/// Most lines of a plugin's stderr that are shown.
const STDERR_LINES: usize = 20;

/// An error, or the context of one, with details and hints. Each of these is one line.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct UserError {
    text: String,
    details: Vec<String>,
    hints: Vec<String>,
}

impl UserError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            details: Vec::new(),
            hints: Vec::new(),
        }
    }

    pub(crate) fn details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    /// Adds a hint on what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// Renders an error of this program, escaped.
pub(crate) fn render(error: &anyhow::Error) -> String {
    let mut text = format!("error: {}", escape(&error.to_string()));
    add_causes(&mut text, error.chain().skip(1));
    if let Some(UserError { details, hints, .. }) = error.downcast_ref() {
        for detail in details {
            add_line(&mut text, &escape(detail));
        }
        for hint in hints {
            add_line(&mut text, &format!("hint: {}", escape(hint)));
        }
    }
    text
}

/// Renders the failure of a plugin, escaped: its name, the error, how it exited, the end
/// of its stderr, and the hint if there is one.
pub(crate) fn render_plugin_failure(error: &CheckError, hint: Option<&str>) -> String {
    let plugin = escape(error.plugin());
    let mut text = format!(
        "the plugin `{plugin}` failed: {}",
        escape(&error.to_string())
    );
    add_causes(
        &mut text,
        iter::successors(error.source(), |&cause| cause.source()),
    );
    add_line(&mut text, &format!("kind: {}", error.kind()));
    if let Some(exit) = error.exit() {
        add_line(&mut text, &format!("exit: {}", escape(&exit.to_string())));
    }
    let lines: Vec<&str> = error.stderr_tail().lines().collect();
    if !lines.is_empty() {
        add_line(&mut text, "end of its stderr:");
        for line in &lines[lines.len().saturating_sub(STDERR_LINES)..] {
            add_line(&mut text, &format!("  | {}", escape(line)));
        }
    }
    if let Some(hint) = hint {
        add_line(&mut text, &format!("hint: {hint}"));
    }
    text
}

fn add_causes<'a>(text: &mut String, causes: impl Iterator<Item = &'a (dyn Error + 'static)>) {
    for cause in causes {
        let cause = escape(&cause.to_string());
        // Some texts of the reference quote their cause.
        if !text.contains(&cause) {
            add_line(text, &format!("caused by: {cause}"));
        }
    }
}

fn add_line(text: &mut String, line: &str) {
    write!(text, "\n  {line}").expect("a string takes it");
}
