//! Serving a launched plugin until it exits, fails or is closed: waiting for it to connect,
//! sending checks (`flow_control`), answering its metadata calls (`metadata`), and the
//! timeouts of checks (`timeouts`).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use admission_proto::wire::PROTOCOL_VERSION;

use super::close_and_kill::MAX_GRACE;
use super::core::{Core, FAILURE};
use super::flow_control::send_checks;
use super::metadata::MetadataCalls;
use super::running::{ROUNDS, Round, Running};
use super::timeouts::{Expired, Timeouts};
use crate::error::{Failure, PluginError};
use crate::error_kind::ErrorKind;
use crate::session::{Event, SessionError};
use crate::transport::Exit;

/// Bytes of unwritten replies above which the plugin fails. The host sends no page above half
/// of it, so only a plugin that keeps calling and never reads exceeds it.
const MAX_UNWRITTEN: usize = 16 << 20;

/// Serves the plugin. Returns how it exited, or `None` if it must be stopped.
pub(super) async fn serve(core: &Core, plugin: &mut Running) -> Option<Exit> {
    let mut serving = Serving {
        core,
        plugin,
        connected: false,
        calls: MetadataCalls::new(),
        timeouts: Timeouts::new(),
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
    timeouts: Timeouts,
    events: Vec<Event>,
}

impl Serving<'_> {
    /// Waits until the plugin has exited, and returns its exit. Returns `None` as soon as the
    /// plugin is closed or broken.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Exit>> {
        for _ in 0..ROUNDS {
            self.core.life.register(cx.waker());
            if send_checks(self.core, &mut *self.plugin.session, self.connected).is_break() {
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
            let expired = self.poll_timeouts(cx);
            if matches!(round, Round::Pending) && !(cancelled || answered || expired) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
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
                Event::OutputEnded { text } => self.timeouts.output_ended(text),
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

    /// Returns whether a timeout has expired.
    fn poll_timeouts(&mut self, cx: &mut Context<'_>) -> bool {
        let process = &*self.plugin.process;
        match self.timeouts.poll(cx, self.core, process) {
            Poll::Pending => false,
            Poll::Ready(Expired::Rechecked) => true,
            Poll::Ready(Expired::Silent { text }) => {
                self.fail(ErrorKind::Crash, text);
                true
            }
        }
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
