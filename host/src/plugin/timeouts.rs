//! The timeouts while a plugin is served: of a check, and of a plugin that closed its output
//! and does not exit. Only the connect timeout is in `serve`.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::core::Core;
use crate::error::CheckError;
use crate::session::EXIT_GAP;
use crate::transport::RunningPlugin;

/// How long the host waits for a process that is exiting. Slow only on an overloaded machine.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The timeouts of one plugin.
pub(super) struct Timeouts {
    silence: Option<Silence>,
    /// Expires at the earliest deadline.
    timer: Pin<Box<Sleep>>,
}

/// The plugin closed its output and has not exited.
#[derive(Debug, Clone, Copy)]
struct Silence {
    since: Instant,
    /// When to check again whether the plugin is exiting.
    recheck_at: Instant,
    /// The text of the error if it is not.
    text: &'static str,
}

/// What follows from an expired timeout.
pub(super) enum Expired {
    /// Nothing for the plugin: its checks timed out, or it may still exit.
    Rechecked,
    /// The plugin closed its output and keeps running: it fails with this text.
    Silent { text: &'static str },
}

impl Timeouts {
    pub(super) fn new() -> Self {
        Self {
            silence: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// Starts the time in which the plugin must exit, or fail with `text`.
    pub(super) fn output_ended(&mut self, text: &'static str) {
        let since = Instant::now();
        self.silence = Some(Silence {
            since,
            recheck_at: since + EXIT_GAP,
            text,
        });
    }

    /// Waits for the earliest deadline. Settles the checks that have timed out.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core,
        process: &dyn RunningPlugin,
    ) -> Poll<Expired> {
        let recheck_at = self.silence.map(|silence| silence.recheck_at);
        let deadlines = [check_deadline(core), recheck_at];
        let Some(deadline) = deadlines.into_iter().flatten().min() else {
            return Poll::Pending;
        };
        if self.timer.deadline() != deadline.into() {
            self.timer.as_mut().reset(deadline.into());
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        if check_deadline(core).is_some_and(|at| at <= now) {
            expire_checks(core, now);
        }
        Poll::Ready(self.recheck_silence(now, process))
    }

    fn recheck_silence(&mut self, now: Instant, process: &dyn RunningPlugin) -> Expired {
        let Some(silence) = self.silence.as_mut().filter(|s| s.recheck_at <= now) else {
            return Expired::Rechecked;
        };
        if process.is_exiting() && now < silence.since + EXIT_TIMEOUT {
            silence.recheck_at = now + EXIT_GAP;
            return Expired::Rechecked;
        }
        Expired::Silent { text: silence.text }
    }
}

/// Returns when the oldest pending check times out. A plugin that settles other checks is busy
/// and not stuck, so the time starts again with each of them.
fn check_deadline(core: &Core) -> Option<Instant> {
    let timeout = core.options.check_timeout?;
    core.life.inactive_since()?.checked_add(timeout)
}

/// Settles the checks that have timed out. Checks that were requested later still have time,
/// although the plugin is inactive.
fn expire_checks(core: &Core, now: Instant) {
    let Some(after) = core.options.check_timeout else {
        return;
    };
    let Some(cutoff) = now.checked_sub(after) else {
        return;
    };
    let expired = core.life.take_expired(cutoff);
    let plugin = &*core.name;
    tracing::warn!(
        plugin,
        checks = expired.len(),
        "the admission plugin did not answer in time"
    );
    for check in expired {
        let error = CheckError::timed_out(Arc::clone(&core.name), after);
        check.resolver.resolve(Err(error));
    }
}
