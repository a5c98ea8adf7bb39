//! Serving a launched plugin until it exits, fails or is closed: waiting for it to connect,
//! sending checks, answering its metadata calls, and the timeouts.

use std::future::{Future as _, poll_fn};
use std::pin::Pin as StdPin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use admission_proto::Pin;
use admission_proto::wire::{PROTOCOL_VERSION, plugin::Admission};
use tokio::time::Sleep;

use super::check_cache::{CheckId, Question};
use super::close::MAX_GRACE;
use super::core::{Core, FAILURE};
use super::life::Order;
use super::metadata::MetadataCalls;
use super::running::{ROUNDS, Round, Running};
use crate::error::{CheckError, Failure, PluginError};
use crate::error_kind::ErrorKind;
use crate::session::{Event, PARTING, SessionError};
use crate::transport::Exit;

/// Bytes of unwritten replies above which the plugin fails. The host sends no page above half
/// of it, so only a plugin that keeps calling and never reads exceeds it.
const MAX_UNWRITTEN: usize = 16 << 20;

/// How long the host waits for a process that is exiting. Slow only on an overloaded machine.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the plugin. Returns how it exited, or `None` if it must be stopped.
pub(super) async fn serve(core: &Core, plugin: &mut Running) -> Option<Exit> {
    let mut serving = Serving {
        core,
        plugin,
        connected: false,
        calls: MetadataCalls::new(),
        silence: None,
        timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        events: Vec::new(),
    };
    let connected = poll_fn(|cx| match serving.poll(cx) {
        Poll::Ready(end) => Poll::Ready(Some(end)),
        Poll::Pending if serving.connected => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    match tokio::time::timeout(core.options.connect_timeout, connected).await {
        Ok(None) => poll_fn(|cx| serving.poll(cx)).await,
        Ok(Some(end)) => end,
        Err(_elapsed) => {
            let text = "while waiting for ListAdmissions RPC: context deadline exceeded";
            serving.fail(ErrorKind::ConnectTimeout, text);
            None
        }
    }
}

struct Serving<'a> {
    core: &'a Core,
    plugin: &'a mut Running,
    connected: bool,
    calls: MetadataCalls,
    silence: Option<Silence>,
    /// For the check timeout and for `silence`.
    timer: StdPin<Box<Sleep>>,
    events: Vec<Event>,
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

impl Serving<'_> {
    /// Waits until the plugin has exited, and returns its exit. Returns `None` as soon as the
    /// plugin is closed or broken.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Exit>> {
        for _ in 0..ROUNDS {
            self.core.life.register(cx.waker());
            if !self.send_checks() {
                return Poll::Ready(None);
            }
            let round = self.plugin.poll_round(cx, &mut self.events);
            self.handle_events();
            if let Round::Exited(exit) = round {
                self.fail_after_exit(&exit);
                return Poll::Ready(Some(exit));
            }
            let session = &mut *self.plugin.session;
            let cancelled = self.calls.end_with_checks(self.core, session);
            let answered = self.calls.poll(cx, session);
            let expired = self.poll_timer(cx);
            if matches!(round, Round::Pending) && !(cancelled || answered || expired) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends checks while the session has room. Returns whether the plugin is neither closed nor
    /// broken.
    fn send_checks(&mut self) -> bool {
        let session = &mut *self.plugin.session;
        loop {
            let max_in_flight = if self.connected {
                session.capacity(self.core.options.max_in_flight)
            } else {
                0
            };
            match self.core.life.next_order(max_in_flight) {
                Order::Close => return false,
                Order::Send(id, Question { pin, origin }) => {
                    let service_url = match &origin {
                        Some(origin) => &origin.service_url,
                        None => &self.core.services.settings.service_url,
                    };
                    session.send_admission(admission(id, &pin, service_url));
                }
                Order::Wait => return true,
            }
        }
    }

    fn handle_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match event {
                Event::Connected {
                    protocol_version,
                    plugin_version,
                } => self.connect(protocol_version, &plugin_version),
                Event::MetadataCall(call) => {
                    let session = &mut *self.plugin.session;
                    if let Err(error) = self.calls.accept(call, self.core, session) {
                        self.fail(error.kind, error.text);
                    }
                }
                #[cfg(feature = "grpc")]
                Event::CallCancelled { call_id } => self.calls.end(call_id),
                Event::OutputEnded { text } => {
                    let since = Instant::now();
                    self.silence = Some(Silence {
                        since,
                        recheck_at: since + PARTING,
                        text,
                    });
                }
                Event::Failed(error) => self.fail(error.kind, error.text),
            }
        }
        self.events = events;
        if self.plugin.session.unwritten_replies() > MAX_UNWRITTEN {
            let text = "the admission plugin requests metadata and does not read the replies";
            self.fail(ErrorKind::Resource, text);
        }
    }

    fn connect(&mut self, protocol_version: i32, plugin_version: &str) {
        let plugin = &*self.core.name;
        if protocol_version != PROTOCOL_VERSION {
            tracing::error!(
                plugin,
                protocol_version,
                "unknown admission plugin protocol"
            );
            let error = SessionError::version(protocol_version);
            self.fail(error.kind, error.text);
        } else if self.core.life.connect(Instant::now()) {
            tracing::debug!(plugin, plugin_version, "using deployment admission plugin");
            self.connected = true;
        }
    }

    /// Returns whether a deadline has passed.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let recheck_at = self.silence.map(|silence| silence.recheck_at);
        let deadlines = [self.check_deadline(), recheck_at];
        let Some(deadline) = deadlines.into_iter().flatten().min() else {
            return false;
        };
        if self.timer.deadline() != deadline.into() {
            self.timer.as_mut().reset(deadline.into());
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        let now = Instant::now();
        if self.check_deadline().is_some_and(|at| at <= now) {
            self.expire_checks(now);
        }
        if self
            .silence
            .is_some_and(|silence| silence.recheck_at <= now)
        {
            self.recheck_silence(now);
        }
        true
    }

    /// Returns when the oldest pending check times out.
    fn check_deadline(&self) -> Option<Instant> {
        let timeout = self.core.options.check_timeout?;
        self.core.life.inactive_since()?.checked_add(timeout)
    }

    fn expire_checks(&mut self, now: Instant) {
        // Checks that were requested later still have time, although the plugin is inactive.
        let Some(after) = self.core.options.check_timeout else {
            return;
        };
        let Some(cutoff) = now.checked_sub(after) else {
            return;
        };
        let expired = self.core.life.take_expired(cutoff);
        let plugin = &*self.core.name;
        tracing::warn!(
            plugin,
            checks = expired.len(),
            "the admission plugin did not answer in time"
        );
        for check in expired {
            let error = CheckError::timed_out(Arc::clone(&self.core.name), after);
            check.resolver.resolve(Err(error));
        }
    }

    /// Fails a plugin that closed its output and keeps running.
    fn recheck_silence(&mut self, now: Instant) {
        let Some(silence) = &mut self.silence else {
            return;
        };
        if self.plugin.process.is_exiting() && now < silence.since + EXIT_TIMEOUT {
            silence.recheck_at = now + PARTING;
            return;
        }
        let text = silence.text;
        self.fail(ErrorKind::Crash, text);
    }

    /// Marks the plugin as broken while it runs.
    fn fail(&self, kind: ErrorKind, text: impl Into<String>) {
        let error = PluginError::from(self.failure(kind, text.into(), None));
        let plugin = &*self.core.name;
        if self.core.life.fail(&error, Instant::now() + MAX_GRACE) {
            tracing::warn!(target: FAILURE, plugin, %error, "the admission plugin failed");
        }
    }

    /// Marks the plugin as broken because it exited.
    fn fail_after_exit(&self, exit: &Exit) {
        let when = if self.connected {
            ""
        } else {
            " before making ListAdmissions RPC"
        };
        let kind = match exit {
            Exit::Failed { kind, .. } => *kind,
            _ => ErrorKind::Crash,
        };
        let mut text = format!("the admission plugin terminated{when}: {exit}");
        if let Some(seen) = self.plugin.session.unfinished_frame() {
            text += &format!(" (its output ended inside a frame: {seen})");
        }
        let failure = self.failure(kind, text, Some(exit.clone()));
        if !self.connected {
            self.core.fail_to_start(failure);
        } else if self.core.life.fail(&failure.into(), Instant::now()) && *exit != Exit::Success {
            let plugin = &*self.core.name;
            tracing::warn!(target: FAILURE, plugin, %exit, "the admission plugin has crashed");
        }
    }

    fn failure(&self, kind: ErrorKind, text: String, exit: Option<Exit>) -> Failure {
        Failure {
            plugin: Arc::clone(&self.core.name),
            kind,
            text,
            exit,
            connected: self.connected,
            stderr_tail: self.plugin.stderr.tail(),
            source: None,
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
