//! A launched plugin: its session and its process, polled alternately.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::verdict::PluginEvents;
use crate::session::{Event, Session};
use crate::transport::stderr::StderrLog;
use crate::transport::{Exit, RunningPlugin};

/// Rounds of a polling loop before other tasks get their turn.
pub(super) const ROUNDS: usize = 32;

/// A launched plugin. Dropping it kills the plugin.
pub(super) struct Running {
    pub(super) session: Box<dyn Session>,
    pub(super) process: Box<dyn RunningPlugin>,
    pub(super) stderr: StderrLog,
    plugin_events: Arc<PluginEvents>,
    /// Set until everything that the plugin sent before its exit has arrived.
    exit: Option<Exit>,
}

/// The result of one round.
pub(super) enum Round {
    /// Nothing happened. The task is woken when the next round can make progress.
    Pending,
    /// Bytes were moved or events received.
    Progress,
    /// The plugin has exited, and all that it sent was received.
    Exited(Exit),
}

impl Running {
    pub(super) fn new(
        session: Box<dyn Session>,
        process: Box<dyn RunningPlugin>,
        stderr: StderrLog,
        plugin_events: Arc<PluginEvents>,
    ) -> Self {
        Self {
            session,
            process,
            stderr,
            plugin_events,
            exit: None,
        }
    }

    /// Writes, lets the plugin run, and reads.
    pub(super) fn poll_round(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> Round {
        let mut progress = self.session.poll_write(cx);
        if self.exit.is_none()
            && let Poll::Ready(exit) = self.process.poll_exit(cx)
        {
            self.exit = Some(exit);
            self.session.process_exited();
            progress = true;
        }
        // Checked before the last read, so that no event follows that read.
        let drained = self.exit.is_some() && self.session.poll_drained(cx).is_ready();
        progress |= self.session.poll_read(cx, events);
        match self.exit.take_if(|_| drained) {
            Some(exit) => {
                self.plugin_events.report_dropped_lines();
                Round::Exited(exit)
            }
            None if progress => Round::Progress,
            None => Round::Pending,
        }
    }

    /// Waits for the exit. Until then it ignores verdicts and metadata calls, and handles log
    /// lines.
    pub(super) fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        for _ in 0..ROUNDS {
            match self.poll_round(cx, &mut Vec::new()) {
                Round::Pending => return Poll::Pending,
                Round::Progress => {}
                Round::Exited(exit) => return Poll::Ready(exit),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
