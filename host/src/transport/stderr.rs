//! A plugin's stderr: logged line by line, with its tail kept for errors.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use admission_proto::{LogLevel, escape};

use crate::log::{MAX_LINE, PluginLog};

/// Length of the tail, in bytes.
const MAX_TAIL: usize = 64 << 10;

/// Logs the stderr of one plugin. Never blocks. Buffers at most one line and the tail.
#[derive(Debug, Clone)]
pub(crate) struct StderrLog(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    log: PluginLog,
    /// The incomplete last line, cut at the maximum length.
    line: Vec<u8>,
    tail: VecDeque<u8>,
}

impl StderrLog {
    pub(crate) fn new(plugin: Arc<str>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            log: PluginLog::new(plugin, LogLevel::Info),
            line: Vec::new(),
            tail: VecDeque::new(),
        })))
    }

    /// Takes the next bytes, in pieces of any size.
    pub(crate) fn write(&self, bytes: &[u8]) {
        self.lock().write(bytes);
    }

    /// Logs an incomplete last line, and the number of dropped lines.
    pub(crate) fn finish(&self) {
        let mut inner = self.lock();
        if !inner.line.is_empty() {
            inner.end_line();
        }
        inner.log.report_dropped();
    }

    /// Returns the last lines, escaped.
    pub(crate) fn tail(&self) -> String {
        let mut inner = self.lock();
        let text = String::from_utf8_lossy(inner.tail.make_contiguous());
        let lines: Vec<String> = text.lines().map(escape).collect();
        lines.join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&mut self, bytes: &[u8]) {
        self.extend_tail(bytes);
        let mut pieces = bytes.split(|&byte| byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let room = MAX_LINE - self.line.len();
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if pieces.peek().is_some() {
                self.end_line();
            }
        }
    }

    fn extend_tail(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(MAX_TAIL)..];
        let excess = (self.tail.len() + bytes.len()).saturating_sub(MAX_TAIL);
        self.tail.drain(..excess);
        self.tail.extend(bytes);
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        self.log.line(LogLevel::Info, text.trim_end_matches('\r'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_end_of_stderr_and_is_escaped() {
        let log = StderrLog::new("p".into());
        log.write(&vec![b'x'; 3 * MAX_TAIL]);
        log.write(b"\nred \x1b[31malert\nlast words");
        let tail = log.tail();
        assert!(tail.ends_with("x\nred \\u{1b}[31malert\nlast words"));
        assert!(tail.len() <= MAX_TAIL + 8);
    }

    #[test]
    fn a_line_without_an_end_is_cut_at_the_maximum() {
        let log = StderrLog::new("p".into());
        for _ in 0..100 {
            log.write(&vec![b'y'; MAX_LINE / 2]);
        }
        assert_eq!(log.lock().line.len(), MAX_LINE);
        log.finish();
        assert!(log.lock().line.is_empty());
    }
}
