//! The one task that launches a plugin, feeds it, hears it and sees it off.

mod deadlines;
mod launch;

use std::future::poll_fn;
use std::pin::Pin as StdPin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use admission_proto::wire::{PROTOCOL_VERSION, plugin::Admission};
use admission_proto::{Pin, Status};
use tokio::time::Sleep;

use super::checks::{CheckId, Question};
use super::core::{Core, MAX_GRACE};
use super::hearing::Hearing;
use super::life::Order;
use super::metadata::MetadataCalls;
use crate::error::PluginError;
use crate::error_kind::ErrorKind;
use crate::session::{Event, Hearer as _, MetadataCall, Session, Violation, version_mismatch};
use crate::transport::stderr::StderrLog;
use crate::transport::{Exit, Remains};
use deadlines::Silence;
use launch::fail_to_start;

/// Unwritten replies, in bytes, at which a plugin is given up. No page is handed out
/// above half of it, so only refusals to a plugin that never reads get there.
const MAX_UNREAD: usize = 16 << 20;

/// Target of the events about a plugin that failed. What they say is also the error of
/// its checks, so who shows those may want to filter it out.
const END: &str = "admission_host::end";

/// Rounds of the loop before other tasks get their turn.
const ROUNDS: usize = 32;

/// Ends the plugin's life when the supervisor ends, however it ends: a runtime that
/// is shut down drops it, and no waiter may hang.
pub(super) struct Supervised(Arc<Core>);

impl Supervised {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    /// Runs the plugin from its launch to its end.
    pub(super) async fn run(self) {
        let exit = supervise(&self.0).await;
        self.0.publish(exit);
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.0.close(Duration::ZERO);
        self.0.publish(Exit::KilledByHost);
    }
}

async fn supervise(core: &Arc<Core>) -> Exit {
    let stderr = StderrLog::new(Arc::clone(&core.name));
    let hearing = Arc::new(Hearing::new(Arc::clone(core)));
    let session = match launch::open(core, &hearing, stderr.clone()).await {
        Ok(session) => session,
        Err(error) => {
            let kind = error.kind();
            let text = error.to_string();
            fail_to_start(
                core,
                PluginError::new(&core.name, kind, text).with_source(error),
            );
            return Exit::NeverStarted;
        }
    };
    let mut supervisor = Supervisor::new(Arc::clone(core), session, hearing, stderr);
    let exit = poll_fn(|cx| supervisor.poll(cx)).await;
    // Whoever waits for a verdict knows already; whoever closes waits for this.
    let remains = poll_fn(|cx| supervisor.session.poll_gone(cx)).await;
    if remains == Remains::Processes {
        let plugin = &*core.name;
        tracing::warn!(
            plugin,
            "the admission plugin may have left processes behind"
        );
    }
    exit
}

struct Supervisor {
    core: Arc<Core>,
    session: Box<dyn Session>,
    stage: Stage,
    calls: MetadataCalls,
    hearing: Arc<Hearing>,
    stderr: StderrLog,
    /// Set when the plugin has closed its output.
    silence: Option<Silence>,
    /// When the check that waits longest was asked.
    oldest: Option<Instant>,
    timer: StdPin<Box<Sleep>>,
    events: Vec<Event>,
}

/// What the supervisor waits for.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// For the plugin to connect.
    Connecting {
        /// When it must have connected.
        until: Instant,
    },
    /// For verdicts.
    Serving {
        /// When the plugin connected or last settled a check.
        active: Instant,
    },
    /// For the end; it was asked to finish.
    Ending {
        /// When it is to be killed.
        kill_at: Instant,
        /// Whether it was.
        killed: bool,
    },
}

impl Supervisor {
    fn new(
        core: Arc<Core>,
        session: Box<dyn Session>,
        hearing: Arc<Hearing>,
        stderr: StderrLog,
    ) -> Self {
        let now = Instant::now();
        Self {
            session,
            stage: Stage::Connecting {
                until: now + core.options.connect_timeout,
            },
            calls: MetadataCalls::new(),
            hearing,
            stderr,
            silence: None,
            oldest: None,
            timer: Box::pin(tokio::time::sleep_until(now.into())),
            events: Vec::new(),
            core,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        for _ in 0..ROUNDS {
            self.core.life.register(cx.waker());
            self.obey();
            let heard = self.session.poll(cx, &mut self.events).is_ready();
            if let Some(exit) = self.apply_events() {
                return Poll::Ready(exit);
            }
            let answered = self.calls.poll(cx, &self.core, &mut *self.session);
            let expired = self.poll_timer(cx);
            if !(heard || answered || expired) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Does what the handles of the plugin want: sends checks, or starts to end.
    fn obey(&mut self) {
        loop {
            match self.core.life.next_order(self.window()) {
                Order::End { kill_at } => return self.end(kill_at),
                Order::Send(id, Question { pin, origin }) => {
                    let service_url = match &origin {
                        Some(own) => &own.service_url,
                        None => &self.core.services.service_url,
                    };
                    self.session.admit(admission(id, &pin, service_url));
                }
                Order::Wait { oldest } => {
                    self.oldest = oldest;
                    return;
                }
            }
        }
    }

    /// Returns how many checks may be out at the plugin now.
    fn window(&self) -> usize {
        match self.stage {
            Stage::Serving { .. } => self.session.most_out(self.core.options.max_in_flight),
            _ => 0,
        }
    }

    /// Asks the plugin to finish by `kill_at`, or sooner if that was said before.
    fn end(&mut self, kill_at: Instant) {
        if let Stage::Ending {
            kill_at: earlier, ..
        } = &mut self.stage
        {
            *earlier = kill_at.min(*earlier);
            return;
        }
        self.stage = Stage::Ending {
            kill_at,
            killed: false,
        };
        self.calls = MetadataCalls::new();
        self.oldest = None;
        self.session.finish();
    }

    /// Ends the life with an error while the plugin is still there.
    fn break_off(&mut self, kind: ErrorKind, text: impl Into<String>) {
        let error =
            PluginError::new(&self.core.name, kind, text).with_end(None, self.stderr.tail());
        let plugin = &*self.core.name;
        if self.core.life.fail(&error) {
            tracing::warn!(target: END, plugin, %error, "the admission plugin is broken");
        }
        self.end(Instant::now() + MAX_GRACE);
    }

    /// Returns how the plugin ended, once it has.
    fn apply_events(&mut self) -> Option<Exit> {
        let mut events = std::mem::take(&mut self.events);
        let mut ended = None;
        let mut settled = None;
        for event in events.drain(..) {
            match event {
                Event::Connected {
                    protocol_version,
                    plugin_version,
                } => {
                    self.connected(protocol_version, &plugin_version);
                }
                Event::Resolved {
                    admission_id,
                    status,
                } => {
                    if self.resolved(&admission_id, status) {
                        settled.get_or_insert_with(Instant::now);
                    }
                }
                Event::Settled { at } => settled = Some(at),
                Event::Log { level, message } => self.hearing.logged(level, &message),
                Event::MetadataCall(call) => self.called(call),
                Event::CallCancelled { call_id } => self.calls.cancel(call_id),
                Event::Unknown => {
                    self.core.unknown_frames.fetch_add(1, Ordering::Relaxed);
                }
                Event::OutputEnded { text } => self.silence = Some(Silence::begin(text)),
                Event::Violation(violation) => self.violated(violation),
                Event::Exited { exit, torn } => {
                    self.exited(&exit, torn);
                    ended = Some(exit);
                }
            }
        }
        self.events = events;
        if let (Some(settled), Stage::Serving { active }) = (settled, &mut self.stage) {
            *active = settled.max(*active);
        }
        if self.session.unwritten_replies() > MAX_UNREAD {
            let text = "the admission plugin calls for metadata and does not read the replies";
            self.break_off(ErrorKind::Resource, text);
        }
        ended
    }

    fn connected(&mut self, protocol_version: i32, plugin_version: &str) {
        let plugin = &*self.core.name;
        if protocol_version != PROTOCOL_VERSION {
            tracing::error!(
                plugin,
                protocol_version,
                "unknown admission plugin protocol"
            );
            self.session.ignore_output();
            self.break_off(ErrorKind::Version, version_mismatch(protocol_version));
            return;
        }
        if self.core.life.connect() {
            tracing::debug!(plugin, plugin_version, "using deployment admission plugin");
            self.stage = Stage::Serving {
                active: Instant::now(),
            };
        }
    }

    /// Returns whether the verdict has settled a check.
    fn resolved(&mut self, admission_id: &str, status: Status) -> bool {
        if let Stage::Ending { .. } = self.stage {
            return false;
        }
        let settled = self.hearing.settle(admission_id, status);
        if let Some(check) = settled {
            self.calls.end(check, &mut *self.session);
        }
        settled.is_some()
    }

    fn called(&mut self, call: MetadataCall) {
        if let Stage::Connecting { .. } | Stage::Serving { .. } = self.stage
            && let Err(violation) = self.calls.take(call, &self.core, &mut *self.session)
        {
            self.violated(violation);
        }
    }

    fn violated(&mut self, violation: Violation) {
        self.session.ignore_output();
        self.break_off(violation.kind, violation.text);
    }

    fn exited(&mut self, exit: &Exit, torn: Option<String>) {
        self.hearing.finish();
        let what = match self.stage {
            Stage::Ending { .. } => return,
            Stage::Connecting { .. } => " before making ListAdmissions RPC",
            Stage::Serving { .. } => "",
        };
        let kind = match exit {
            Exit::Failed { kind, .. } => *kind,
            _ => ErrorKind::Crash,
        };
        let torn = torn.map(|seen| format!(" (its output ended inside a frame: {seen})"));
        let text = format!(
            "the admission plugin terminated{what}: {exit}{}",
            torn.unwrap_or_default()
        );
        let error = PluginError::new(&self.core.name, kind, text)
            .with_end(Some(exit.clone()), self.stderr.tail());
        if let Stage::Connecting { .. } = self.stage {
            fail_to_start(&self.core, error);
        } else if self.core.life.fail(&error) && *exit != Exit::Success {
            let plugin = &*self.core.name;
            tracing::warn!(target: END, plugin, %exit, "the admission plugin has crashed");
        }
    }
}

fn admission(id: CheckId, pin: &Pin, service_url: &str) -> Admission {
    Admission {
        admission_id: id.to_wire(),
        service_url: service_url.to_owned(),
        package: pin.package().to_owned(),
        instance: Some(pin.instance().object_ref().into()),
    }
}
