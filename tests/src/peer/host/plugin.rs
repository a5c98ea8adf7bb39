//! A plugin that the host runs.

use std::ffi::OsStr;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use admission_proto::wire::cipd::ObjectRef;
use admission_proto::wire::plugin::{Admission, ResolveAdmissionRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tonic::Status;

use super::{Behaviour, Event, PeerHost, PluginState, Plugins, SERVICE_URL, lock, terminating};

/// Capacity of the queue of admissions for a plugin, and of the queue of events for its test.
const QUEUE: usize = 1 << 17;

/// A running plugin.
pub struct Plugin {
    child: Child,
    stdin: Option<ChildStdin>,
    ticket: String,
    plugins: Plugins,
    admissions: mpsc::Sender<Result<Admission, Status>>,
    events: mpsc::Receiver<Event>,
}

impl PeerHost {
    /// Starts a plugin and writes the handshake.
    ///
    /// # Panics
    ///
    /// If the plugin cannot be started, or closes its stdin before the handshake is written.
    pub async fn launch(
        &self,
        command: impl IntoIterator<Item = impl AsRef<OsStr>>,
        behaviour: Behaviour,
    ) -> Plugin {
        let mut plugin = self.spawn(command, behaviour);
        let line = plugin.handshake(self.port);
        plugin.write(line.as_bytes()).await;
        plugin
    }

    /// Starts a plugin, and writes nothing to its stdin.
    ///
    /// # Panics
    ///
    /// If the plugin cannot be started.
    pub fn spawn(
        &self,
        command: impl IntoIterator<Item = impl AsRef<OsStr>>,
        behaviour: Behaviour,
    ) -> Plugin {
        let mut words = command.into_iter();
        let program = words.next().expect("a command names a program");
        let mut child = Command::new(program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the plugin starts");
        let (admissions, to_plugin) = mpsc::channel(QUEUE);
        let (events, from_plugin) = mpsc::channel(QUEUE);
        let ticket = ticket();
        let state = PluginState {
            events,
            admissions: Mutex::new(Some(to_plugin)),
            behaviour,
        };
        lock(&self.plugins).insert(ticket.clone(), Arc::new(state));
        Plugin {
            stdin: child.stdin.take(),
            child,
            ticket,
            plugins: Arc::clone(&self.plugins),
            admissions,
            events: from_plugin,
        }
    }
}

impl Plugin {
    /// Returns the handshake of a host that listens on `port`.
    #[must_use]
    pub fn handshake(&self, port: u16) -> String {
        format!("{{\"port\":{port}, \"ticket\":\"{}\"}}\n", self.ticket)
    }

    /// Returns the plugin's ticket.
    #[must_use]
    pub fn ticket(&self) -> &str {
        &self.ticket
    }

    /// Writes to stdin.
    ///
    /// # Panics
    ///
    /// If the plugin has closed its stdin.
    pub async fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes).await.expect("the plugin reads");
    }

    /// Waits until the plugin calls ListAdmissions.
    ///
    /// # Panics
    ///
    /// If its first call is not ListAdmissions.
    pub async fn connected(&mut self) {
        match self.event().await {
            Event::Connected(_) => {}
            other => panic!("{other:?} before ListAdmissions"),
        }
    }

    /// Waits for the next line on the plugin's stderr, which must be `line`.
    ///
    /// # Panics
    ///
    /// If the plugin writes another line.
    pub async fn expect_stderr(&mut self, line: &str) {
        let stderr = self.child.stderr.as_mut().expect("`exit` was not called");
        let mut written = vec![0; line.len() + 1];
        stderr.read_exact(&mut written).await.expect("another line");
        assert_eq!(String::from_utf8_lossy(&written), format!("{line}\n"));
    }

    /// Waits for the next call of the plugin.
    ///
    /// # Panics
    ///
    /// If the ticket was revoked.
    pub async fn event(&mut self) -> Event {
        self.events.recv().await.expect("the ticket is valid")
    }

    /// Returns the next call that was made before the ticket was revoked, or `None` if there
    /// are no more.
    pub async fn remaining_event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Waits for the next verdict, and returns the ID, code and message.
    ///
    /// # Panics
    ///
    /// If the next call is not a verdict.
    pub async fn verdict(&mut self) -> (String, i32, String) {
        match self.event().await {
            Event::Resolved(verdict) => verdict_parts(verdict),
            other => panic!("{other:?} is not a verdict"),
        }
    }

    /// Waits for the next log line, and returns its severity and text.
    ///
    /// # Panics
    ///
    /// If the next call is not a log line.
    pub async fn line(&mut self) -> (String, String) {
        match self.event().await {
            Event::Logged(line) => (line.severity, line.message),
            other => panic!("{other:?} is not a log line"),
        }
    }

    /// Sends an admission with the service URL of this host.
    pub async fn ask(&self, id: &str, package: &str) {
        self.send(admission(id, SERVICE_URL, package)).await;
    }

    /// Sends an admission.
    pub async fn send(&self, admission: Admission) {
        // An error means that the stream has ended.
        let _ = self.admissions.send(Ok(admission)).await;
    }

    /// Ends the stream of admissions with `status`, and waits until the stream has ended.
    pub async fn end_stream(&self, status: Status) {
        // An error means that the stream has ended.
        let _ = self.admissions.send(Err(status)).await;
        self.admissions.closed().await;
    }

    /// Revokes the ticket, as the reference does when it closes a plugin.
    pub fn revoke(&self) {
        lock(&self.plugins).remove(&self.ticket);
    }

    /// Closes stdin.
    pub fn end_stdin(&mut self) {
        self.stdin = None;
    }

    /// Returns the ID of the process.
    ///
    /// # Panics
    ///
    /// If the plugin was reaped.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id().expect("a child that was not reaped")
    }

    /// Sends SIGKILL.
    ///
    /// # Panics
    ///
    /// If the plugin was reaped.
    pub fn kill(&mut self) {
        self.child
            .start_kill()
            .expect("a child that was not reaped");
    }

    /// Closes the plugin as the reference does. Returns its exit status and stderr.
    pub async fn close(&mut self) -> (ExitStatus, String) {
        // An error means that the plugin has no stream.
        let _ = self.admissions.send(Err(terminating())).await;
        self.revoke();
        self.end_stdin();
        self.exit().await
    }

    /// Waits for the exit. Returns the exit status and stderr.
    ///
    /// # Panics
    ///
    /// If stderr is not UTF-8.
    pub async fn exit(&mut self) -> (ExitStatus, String) {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut text).await.expect("UTF-8");
        }
        (
            self.child
                .wait()
                .await
                .expect("a child that was not reaped"),
            text,
        )
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.revoke();
    }
}

/// Returns an admission of an instance of `package`.
#[must_use]
pub fn admission(id: &str, service_url: &str, package: &str) -> Admission {
    Admission {
        admission_id: id.to_owned(),
        service_url: service_url.to_owned(),
        package: package.to_owned(),
        instance: Some(ObjectRef {
            hash_algo: 2,
            hex_digest: "ab".repeat(32),
        }),
    }
}

fn verdict_parts(verdict: ResolveAdmissionRequest) -> (String, i32, String) {
    // A missing status admits, as in the reference.
    let status = verdict.status.unwrap_or_default();
    (verdict.admission_id, status.code, status.message)
}

/// Returns a ticket of 86 characters, unique in this process.
fn ticket() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{:+>86}", COUNT.fetch_add(1, Ordering::Relaxed))
}
