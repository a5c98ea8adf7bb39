//! A plugin that runs under the host.

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

use super::{Behaviour, Desk, Desks, Event, PeerHost, SERVICE_URL, lock, terminating};

/// Admissions that wait for a plugin, and what it said that waits for the test.
const ROOM: usize = 1 << 17;

/// A process, and what the host keeps for it.
pub struct Plugin {
    child: Child,
    stdin: Option<ChildStdin>,
    ticket: String,
    desks: Desks,
    admissions: mpsc::Sender<Result<Admission, Status>>,
    events: mpsc::Receiver<Event>,
}

impl PeerHost {
    /// Starts a plugin and writes the handshake.
    ///
    /// # Panics
    ///
    /// If the plugin cannot be started, or ends before it is written to.
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

    /// Starts a plugin to which nothing is written yet.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
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
        let (admissions, to_plugin) = mpsc::channel(ROOM);
        let (events, from_plugin) = mpsc::channel(ROOM);
        let ticket = ticket();
        let desk = Desk {
            events,
            admissions: Mutex::new(Some(to_plugin)),
            behaviour,
        };
        lock(&self.desks).insert(ticket.clone(), Arc::new(desk));
        Plugin {
            stdin: child.stdin.take(),
            child,
            ticket,
            desks: Arc::clone(&self.desks),
            admissions,
            events: from_plugin,
        }
    }
}

impl Plugin {
    /// Returns the line that a host on `port` writes first.
    #[must_use]
    pub fn handshake(&self, port: u16) -> String {
        format!("{{\"port\":{port}, \"ticket\":\"{}\"}}\n", self.ticket)
    }

    /// Returns what each call has to carry.
    #[must_use]
    pub fn ticket(&self) -> &str {
        &self.ticket
    }

    /// Writes to stdin.
    ///
    /// # Panics
    ///
    /// If the plugin does not read.
    pub async fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes).await.expect("the plugin reads");
    }

    /// Waits until the plugin asks for admissions.
    ///
    /// # Panics
    ///
    /// If it does something else.
    pub async fn connected(&mut self) {
        match self.event().await {
            Event::Connected(_) => {}
            other => panic!("{other:?} comes before it is connected"),
        }
    }

    /// Waits until the plugin has written this line to stderr.
    ///
    /// # Panics
    ///
    /// If it writes another.
    pub async fn says(&mut self, line: &str) {
        let stderr = self
            .child
            .stderr
            .as_mut()
            .expect("nobody waits for the exit");
        let mut said = vec![0; line.len() + 1];
        stderr
            .read_exact(&mut said)
            .await
            .expect("it has more to say");
        assert_eq!(String::from_utf8_lossy(&said), format!("{line}\n"));
    }

    /// Waits for what the plugin does next.
    ///
    /// # Panics
    ///
    /// If nothing can come any more.
    pub async fn event(&mut self) -> Event {
        self.events.recv().await.expect("the ticket is valid")
    }

    /// Takes what the plugin still said before its ticket was revoked and its calls ended.
    pub async fn last_words(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Waits for the next verdict: the ID, code and message.
    ///
    /// # Panics
    ///
    /// If the plugin does something else.
    pub async fn verdict(&mut self) -> (String, i32, String) {
        match self.event().await {
            Event::Resolved(verdict) => told(verdict),
            other => panic!("{other:?} is no verdict"),
        }
    }

    /// Waits for the next log line: severity and text.
    ///
    /// # Panics
    ///
    /// If the plugin does something else.
    pub async fn line(&mut self) -> (String, String) {
        match self.event().await {
            Event::Logged(line) => (line.severity, line.message),
            other => panic!("{other:?} is no log line"),
        }
    }

    /// Sends an admission of the host's own service.
    pub async fn ask(&self, id: &str, package: &str) {
        self.send(admission(id, SERVICE_URL, package)).await;
    }

    /// Sends an admission.
    pub async fn send(&self, admission: Admission) {
        // A plugin that is gone gets nothing more.
        let _ = self.admissions.send(Ok(admission)).await;
    }

    /// Ends the stream of admissions, and waits until the status is on its way.
    pub async fn end_stream(&self, status: Status) {
        // A stream that has ended stays so.
        let _ = self.admissions.send(Err(status)).await;
        self.admissions.closed().await;
    }

    /// Takes the ticket back, as the reference does when it ends a plugin.
    pub fn revoke(&self) {
        lock(&self.desks).remove(&self.ticket);
    }

    /// Ends stdin.
    pub fn end_stdin(&mut self) {
        self.stdin = None;
    }

    /// Returns the ID of the process.
    ///
    /// # Panics
    ///
    /// If it has been waited for.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id().expect("it is ours")
    }

    /// Sends SIGKILL.
    ///
    /// # Panics
    ///
    /// If it has been waited for.
    pub fn kill(&mut self) {
        self.child.start_kill().expect("it is ours");
    }

    /// Closes the plugin as the reference does. Returns its exit and what stderr had.
    pub async fn close(&mut self) -> (ExitStatus, String) {
        // One that does not list any has no stream that could end.
        let _ = self.admissions.send(Err(terminating())).await;
        self.revoke();
        self.end_stdin();
        self.exit().await
    }

    /// Waits for the exit. Returns what stderr had as well.
    ///
    /// # Panics
    ///
    /// If stderr is no text.
    pub async fn exit(&mut self) -> (ExitStatus, String) {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut text).await.expect("it is text");
        }
        (self.child.wait().await.expect("it is ours"), text)
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.revoke();
    }
}

/// Returns an admission of some instance of `package`.
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

fn told(verdict: ResolveAdmissionRequest) -> (String, i32, String) {
    // A verdict without a status admits.
    let status = verdict.status.unwrap_or_default();
    (verdict.admission_id, status.code, status.message)
}

/// Returns 86 characters that no other plugin of this process has.
fn ticket() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{:+>86}", COUNT.fetch_add(1, Ordering::Relaxed))
}
