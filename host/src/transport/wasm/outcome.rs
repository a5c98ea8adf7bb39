//! How a guest ended, in the words of the host.

use admission_proto::escape;
use wasmtime::{Error, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::limits::Exceeded;
use crate::error_kind::ErrorKind;
use crate::transport::Exit;
use crate::transport::stderr::StderrLog;

/// Longest text of the engine that is shown, in bytes. Names in it are the guest's.
const MAX_WORDS: usize = 1024;

/// How far a guest got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its start functions ran.
    Instantiating,
    /// `wasi:cli/run` ran.
    Running,
}

/// Describes the end of a guest whose `wasi:cli/run` returned.
pub(super) fn returned(result: Result<(), ()>) -> Exit {
    match result {
        Ok(()) => Exit::Success,
        Err(()) => exited_with_failure(),
    }
}

/// Describes the end of a guest that was cut off, and adds where it was to its stderr.
pub(super) fn cut_off(stage: Stage, error: &Error, stderr: &StderrLog) -> Exit {
    match error.downcast_ref() {
        Some(I32Exit(0)) => return Exit::Success,
        Some(I32Exit(_)) => return exited_with_failure(),
        None => {}
    }
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        // After the guest's own last words, ended or not.
        stderr.finish();
        stderr.write(format!("{backtrace}\n").as_bytes());
    }
    let (kind, reason) = reason(error);
    let words = match stage {
        Stage::Instantiating => format!("trap: cannot be instantiated: {reason}"),
        Stage::Running => format!("trap: {reason}"),
    };
    Exit::failed(kind, words)
}

/// Puts an error of the engine, causes and all, on one line of bounded length.
pub(super) fn one_line(error: &Error) -> String {
    let mut words = escape(&format!("{error:#}").replace('\n', " "));
    words.truncate(words.floor_char_boundary(MAX_WORDS));
    words
}

/// A component has no exit status of its own: WASI 0.2 keeps only that it failed.
fn exited_with_failure() -> Exit {
    Exit::failed(ErrorKind::Crash, "exit status 1")
}

fn reason(error: &Error) -> (ErrorKind, String) {
    if let Some(limit) = Exceeded::behind(error) {
        return (ErrorKind::Resource, limit.to_string());
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        let words = trap.to_string();
        let words = words.strip_prefix("wasm trap: ").unwrap_or(&words);
        return (ErrorKind::Trap, words.to_owned());
    }
    // What the host refused: the innermost cause says it, the rest is the way there.
    let mut words = escape(&error.root_cause().to_string());
    words.truncate(words.floor_char_boundary(MAX_WORDS));
    (ErrorKind::Trap, words)
}
