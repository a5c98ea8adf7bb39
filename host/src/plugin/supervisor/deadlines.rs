//! What the supervisor waits for has its time.

use std::future::Future as _;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use super::{Stage, Supervisor};
use crate::error::CheckError;
use crate::error_kind::ErrorKind;
use crate::session::PARTING;

/// How long the exit of a plugin that is on its way out is waited for. It takes longer
/// than an instant only where nobody gets to compute.
const DYING: Duration = Duration::from_secs(5);

/// A plugin has closed its output, and may live on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence {
    since: Instant,
    /// When to look whether it does.
    until: Instant,
    /// What it means for checks if it does.
    text: &'static str,
}

impl Silence {
    pub(super) fn begin(text: &'static str) -> Self {
        let since = Instant::now();
        Self {
            since,
            until: since + PARTING,
            text,
        }
    }
}

impl Supervisor {
    /// Returns whether a deadline has passed, and what follows was done.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline() else {
            return false;
        };
        if self.timer.deadline() != deadline.into() {
            self.timer.as_mut().reset(deadline.into());
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.expire(Instant::now());
        true
    }

    /// Returns when the next of what is waited for is late.
    fn deadline(&self) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Connecting { until } => Some(until),
            Stage::Serving { active } => self.check_deadline(active),
            Stage::Ending { killed: true, .. } => return None,
            Stage::Ending { kill_at, .. } => return Some(kill_at),
        };
        [stage, self.silence.map(|silence| silence.until)]
            .into_iter()
            .flatten()
            .min()
    }

    fn check_deadline(&self, active: Instant) -> Option<Instant> {
        let timeout = self.core.options.check_timeout?;
        self.oldest?.max(active).checked_add(timeout)
    }

    /// Does what follows from every deadline that has passed at `now`.
    fn expire(&mut self, now: Instant) {
        match self.stage {
            Stage::Ending { kill_at, .. } => {
                if kill_at <= now {
                    self.stage = Stage::Ending {
                        kill_at,
                        killed: true,
                    };
                    self.session.kill();
                }
                return;
            }
            Stage::Connecting { until } if until <= now => {
                let text = "while waiting for ListAdmissions RPC: context deadline exceeded";
                self.break_off(ErrorKind::ConnectTimeout, text);
                return;
            }
            Stage::Serving { active }
                if self
                    .check_deadline(active)
                    .is_some_and(|deadline| deadline <= now) =>
            {
                self.expire_checks(now);
            }
            Stage::Connecting { .. } | Stage::Serving { .. } => {}
        }
        if let Some(silence) = &mut self.silence
            && silence.until <= now
        {
            if self.session.is_exiting() && now < silence.since + DYING {
                silence.until = now + PARTING;
            } else {
                let text = silence.text;
                self.break_off(ErrorKind::Crash, text);
            }
        }
    }

    fn expire_checks(&mut self, now: Instant) {
        let Some(after) = self.core.options.check_timeout else {
            return;
        };
        // Checks asked since then have time left, though the plugin is silent.
        let Some(cutoff) = now.checked_sub(after) else {
            return;
        };
        let expired = self.core.life.expire(cutoff);
        let plugin = &*self.core.name;
        tracing::warn!(
            plugin,
            checks = expired.len(),
            "the admission plugin did not answer in time"
        );
        for check in expired {
            let plugin = Arc::clone(&self.core.name);
            check
                .resolver
                .resolve(Err(CheckError::TimedOut { plugin, after }));
        }
        self.calls.end_settled(&self.core, &mut *self.session);
    }
}
