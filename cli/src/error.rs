//! Errors as a person reads them: the chain of causes, and what to do next.

use std::fmt::Write as _;

use admission_host::CheckError;
use admission_proto::escape;

use crate::cipd_config::CipdConfigError;
use crate::input::InputError;

/// Most lines of a plugin's stderr that are shown.
const STDERR_LINES: usize = 20;

/// Renders an error that kept anything from being started.
pub(crate) fn render(error: &anyhow::Error) -> String {
    let mut text = format!("error: {}", escape(&error.to_string()));
    add_causes(&mut text, error.chain().skip(1));
    if let Some(error) = error.downcast_ref::<InputError>() {
        for detail in error.details() {
            add(&mut text, &escape(&detail));
        }
        for hint in error.hints() {
            add(&mut text, &format!("hint: {}", escape(&hint)));
        }
    }
    if let Some(hint) = error.downcast_ref().and_then(CipdConfigError::hint) {
        add(&mut text, &format!("hint: {hint}"));
    }
    text
}

/// Describes the failure of a plugin: what happened, to which one, and what to do next if
/// there is a `hint`.
pub(crate) fn describe_plugin_failure(error: &CheckError, hint: Option<&str>) -> String {
    let mut text = format!(
        "the plugin `{}` failed: {}",
        escape(error.plugin()),
        escape(&error.to_string())
    );
    let first = std::error::Error::source(error);
    add_causes(
        &mut text,
        std::iter::successors(first, |cause| cause.source()),
    );
    add(&mut text, &format!("kind: {}", error.kind()));
    if let Some(exit) = error.exit() {
        add(&mut text, &format!("exit: {}", escape(&exit.to_string())));
    }
    let lines: Vec<&str> = error.stderr_tail().lines().collect();
    if !lines.is_empty() {
        add(&mut text, "the last that it wrote to stderr:");
        for line in &lines[lines.len().saturating_sub(STDERR_LINES)..] {
            add(&mut text, &format!("  | {}", escape(line)));
        }
    }
    if let Some(hint) = hint {
        add(&mut text, &format!("hint: {hint}"));
    }
    text
}

fn add_causes<'a>(
    text: &mut String,
    causes: impl Iterator<Item = &'a (dyn std::error::Error + 'static)>,
) {
    for cause in causes {
        let cause = escape(&cause.to_string());
        // Some texts have to quote their cause, where the reference's do.
        if !text.contains(&cause) {
            add(text, &format!("caused by: {cause}"));
        }
    }
}

fn add(text: &mut String, line: &str) {
    write!(text, "\n  {line}").expect("a string takes it");
}
