//! The one task that launches a plugin, feeds it, hears it and sees it off.

use std::future::poll_fn;
use std::pin::{Pin as StdPin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use admission_proto::wire::{PROTOCOL_VERSION, plugin::Admission};
use admission_proto::{Pin, Status};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::checks::CheckId;
use super::core::{Core, MAX_GRACE};
use super::life::{Order, Stray};
use super::metadata::MetadataCalls;
use super::verdict;
use crate::class::Class;
use crate::error::{CheckError, PluginError};
use crate::log::PluginLog;
use crate::session::stdio::StdioSession;
use crate::session::{Event, MetadataCall, Violation};
use crate::transport::stderr::StderrLog;
use crate::transport::{Exit, LaunchError, Launched, Remains};

/// How long a plugin may live on after its output has ended.
const OUTPUT_ENDED_GRACE: Duration = Duration::from_millis(50);

/// How long a frame may take from its first byte to its last.
const FRAME_TIMEOUT: Duration = Duration::from_secs(5);

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
        drop(self.0.close(Duration::ZERO));
        self.0.publish(Exit::KilledByHost);
    }
}

async fn supervise(core: &Arc<Core>) -> Exit {
    let stderr = StderrLog::new(Arc::clone(&core.name));
    let launched = match launch(core, stderr.clone()).await {
        Ok(launched) => launched,
        Err(error) => {
            let class = error.class();
            let text = error.to_string();
            fail_to_start(
                core,
                PluginError::new(&core.name, class, text).with_source(error),
            );
            return Exit::NeverStarted;
        }
    };
    let mut supervisor = Supervisor::new(Arc::clone(core), launched, stderr);
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

async fn launch(core: &Core, stderr: StderrLog) -> Result<Launched, LaunchError> {
    if core.services.is_closed() {
        return Err(LaunchError::HostClosed);
    }
    let cancel = CancellationToken::new();
    let mut launching = core.launcher.launch(stderr, cancel.clone());
    tokio::select! {
        biased;
        launched = &mut launching => return launched,
        () = time_to_kill(core) => {}
    }
    cancel.cancel();
    launching.await
}

/// Waits until somebody has closed the plugin and the grace is over.
async fn time_to_kill(core: &Core) {
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|cx| {
        core.life.register(cx.waker());
        let Some(kill_at) = core.life.kill_at() else {
            return Poll::Pending;
        };
        if timer.deadline() != kill_at.into() {
            timer.as_mut().reset(kill_at.into());
        }
        timer.as_mut().poll(cx)
    })
    .await;
}

fn fail_to_start(core: &Core, error: PluginError) {
    let plugin = &*core.name;
    if core.life.fail(&error) {
        tracing::warn!(target: END, plugin, %error, "the admission plugin failed to start");
    }
}

struct Supervisor {
    core: Arc<Core>,
    session: StdioSession,
    stage: Stage,
    calls: MetadataCalls,
    log: PluginLog,
    stderr: StderrLog,
    /// When the plugin closed its output while it lived.
    output_ended: Option<Instant>,
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
    fn new(core: Arc<Core>, launched: Launched, stderr: StderrLog) -> Self {
        let now = Instant::now();
        Self {
            session: StdioSession::new(launched, core.services.hello()),
            stage: Stage::Connecting {
                until: now + core.options.connect_timeout,
            },
            calls: MetadataCalls::new(),
            log: PluginLog::new(Arc::clone(&core.name)),
            stderr,
            output_ended: None,
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
            let answered = self.calls.poll(cx, &self.core, &mut self.session);
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
                Order::Send(id, pin) => {
                    let service_url = &self.core.services.service_url;
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
            Stage::Serving { .. } if self.session.has_room() => self.core.options.window,
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
    fn break_off(&mut self, class: Class, text: impl Into<String>) {
        let error =
            PluginError::new(&self.core.name, class, text).with_end(None, self.stderr.tail());
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
        let mut settled = false;
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
                } => settled |= self.resolved(&admission_id, status),
                Event::Log { level, message } => self.log.line(level, &message),
                Event::MetadataCall(call) => self.called(call),
                Event::Unknown => {
                    self.core.unknown_frames.fetch_add(1, Ordering::Relaxed);
                }
                Event::OutputEnded => self.output_ended = Some(Instant::now()),
                Event::Violation(violation) => self.violated(violation),
                Event::Exited { exit, torn } => {
                    self.exited(&exit, torn);
                    ended = Some(exit);
                }
            }
        }
        self.events = events;
        if settled && let Stage::Serving { active } = &mut self.stage {
            *active = Instant::now();
        }
        if self.session.unwritten_replies() > MAX_UNREAD {
            let text = "the admission plugin calls for metadata and does not read the replies";
            self.break_off(Class::Resource, text);
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
            let text = format!(
                "unknown protocol version {protocol_version}: expecting {PROTOCOL_VERSION}"
            );
            self.session.ignore_output();
            self.break_off(Class::Version, text);
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
        let id = CheckId::from_wire(admission_id);
        match self.core.life.decide(id) {
            Ok(resolver) => {
                resolver.resolve(verdict::outcome(&self.core.name, status));
                if let Some(id) = id {
                    self.calls.end(id, &mut self.session);
                }
                true
            }
            Err(Stray { before }) => {
                if before.is_multiple_of(STRAYS_PER_LINE) {
                    let (plugin, strays) = (&*self.core.name, before + 1);
                    tracing::warn!(
                        plugin,
                        strays,
                        "ignored a verdict on a check that is not undecided"
                    );
                }
                false
            }
        }
    }

    fn called(&mut self, call: MetadataCall) {
        if let Stage::Serving { .. } = self.stage
            && let Err(violation) = self.calls.take(call, &self.core, &mut self.session)
        {
            self.violated(violation);
        }
    }

    fn violated(&mut self, violation: Violation) {
        self.session.ignore_output();
        self.break_off(violation.class, violation.text);
    }

    fn exited(&mut self, exit: &Exit, torn: Option<String>) {
        self.log.report_dropped();
        let what = match self.stage {
            Stage::Ending { .. } => return,
            Stage::Connecting { .. } => " before making ListAdmissions RPC",
            Stage::Serving { .. } => "",
        };
        let class = match exit {
            Exit::Failed { class, .. } => *class,
            _ => Class::Crash,
        };
        let torn = torn.map(|seen| format!(" (its output ended inside a frame: {seen})"));
        let text = format!(
            "the admission plugin terminated{what}: {exit}{}",
            torn.unwrap_or_default()
        );
        let error = PluginError::new(&self.core.name, class, text)
            .with_end(Some(exit.clone()), self.stderr.tail());
        if let Stage::Connecting { .. } = self.stage {
            fail_to_start(&self.core, error);
        } else if self.core.life.fail(&error) && *exit != Exit::Success {
            let plugin = &*self.core.name;
            tracing::warn!(target: END, plugin, %exit, "the admission plugin has crashed");
        }
    }

    /// Returns whether a deadline has passed, and what follows was done.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
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
        [stage, self.output_deadline(), self.frame_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    fn check_deadline(&self, active: Instant) -> Option<Instant> {
        let timeout = self.core.options.check_timeout?;
        self.oldest?.max(active).checked_add(timeout)
    }

    fn output_deadline(&self) -> Option<Instant> {
        self.output_ended.map(|ended| ended + OUTPUT_ENDED_GRACE)
    }

    fn frame_deadline(&self) -> Option<Instant> {
        self.session
            .frame_since()
            .map(|since| since + FRAME_TIMEOUT)
    }

    /// Does what follows from every deadline that has passed at `now`.
    fn expire(&mut self, now: Instant) {
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
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
                self.break_off(Class::HandshakeTimeout, text);
                return;
            }
            Stage::Serving { active } if passed(self.check_deadline(active)) => {
                self.expire_checks(now);
            }
            Stage::Connecting { .. } | Stage::Serving { .. } => {}
        }
        if passed(self.output_deadline()) {
            self.break_off(Class::Crash, "the admission plugin closed its output");
        } else if passed(self.frame_deadline()) {
            self.violated(self.session.stall());
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
        for resolver in expired {
            let plugin = Arc::clone(&self.core.name);
            resolver.resolve(Err(CheckError::TimedOut { plugin, after }));
        }
        self.calls.end_settled(&self.core, &mut self.session);
    }
}

/// Stray verdicts between two lines about them.
const STRAYS_PER_LINE: u64 = 1_000;

fn admission(id: CheckId, pin: &Pin, service_url: &str) -> Admission {
    Admission {
        admission_id: id.to_wire(),
        service_url: service_url.to_owned(),
        package: pin.package().to_owned(),
        instance: Some(pin.instance().object_ref().into()),
    }
}
