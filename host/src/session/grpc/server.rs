//! The gRPC server of a host, which all its plugins call.

use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::authentication::{Authenticator, Ticket};
use super::connection;
use super::shared::{SharedSession, lock};
use crate::error_kind::ErrorKind;
use crate::session::{SessionError, SessionEvents};
use crate::transport::LaunchError;

/// How long the server waits after a transient error, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the plugins of one host on one port of 127.0.0.1. Starts to listen when the
/// first plugin registers, and stops when it is closed and no plugin is registered.
pub(crate) struct Server {
    runtime: Handle,
    authenticator: Arc<Authenticator>,
    /// `None` until the first plugin registers.
    state: Arc<Mutex<Option<State>>>,
    /// Cancelled when the port and all connections are closed.
    stopped: CancellationToken,
}

enum State {
    Listening {
        port: u16,
        /// Stops the server when the last clone is dropped: each registration has one.
        stop: Arc<DropGuard>,
    },
    Failed(Arc<io::Error>),
    /// The server accepts no more plugins, and still serves those that are registered.
    Closed,
}

/// A plugin that may call the server. Dropping it revokes the plugin's ticket and closes
/// its connections.
pub(crate) struct Registration {
    pub(super) session: Arc<SharedSession>,
    port: u16,
    ticket: Ticket,
    authenticator: Arc<Authenticator>,
    _stop: Arc<DropGuard>,
}

impl Server {
    /// Creates a server that will listen on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            authenticator: Arc::default(),
            state: Arc::default(),
            stopped: CancellationToken::new(),
        }
    }

    /// Registers a plugin, whose verdicts and log lines go to `events`.
    ///
    /// # Errors
    ///
    /// If the server cannot listen, has failed, or was closed.
    pub(crate) fn register(
        &self,
        events: Arc<dyn SessionEvents>,
    ) -> Result<Registration, LaunchError> {
        let mut state = lock(&self.state);
        let listening = state.get_or_insert_with(|| {
            let listening = self.listen();
            listening.unwrap_or_else(|cause| State::Failed(Arc::new(cause)))
        });
        let (port, stop) = match listening {
            State::Listening { port, stop } => (*port, Arc::clone(stop)),
            State::Failed(cause) => return Err(LaunchError::Server(Arc::clone(cause))),
            State::Closed => return Err(LaunchError::HostClosed),
        };
        let session = Arc::new(SharedSession::new(events));
        Ok(Registration {
            // Under the lock of the state: a failure of the server must reach every session.
            ticket: self.authenticator.issue(Arc::clone(&session)),
            session,
            port,
            authenticator: Arc::clone(&self.authenticator),
            _stop: stop,
        })
    }

    /// Refuses further plugins. The server stops when no plugin is registered any more.
    pub(crate) fn close(&self) {
        let previous = lock(&self.state).replace(State::Closed);
        if previous.is_none() {
            self.stopped.cancel();
        }
    }

    /// Waits until the server has stopped. Without a call of [`close`](Self::close) it
    /// may never stop.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        self.stopped.clone().cancelled_owned()
    }

    fn listen(&self) -> io::Result<State> {
        let stopped = self.stopped.clone().drop_guard();
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let _in_runtime = self.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let stop = CancellationToken::new();
        let authenticator = Arc::clone(&self.authenticator);
        let state = Arc::clone(&self.state);
        let run = run(listener, authenticator, state, stop.clone(), stopped);
        // The owner of the server waits for `stopped`. The task cancels it when it is dropped.
        self.runtime.spawn(run);
        Ok(State::Listening {
            port,
            stop: Arc::new(stop.drop_guard()),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

impl Registration {
    /// Returns the handshake line, with the port and the ticket.
    pub(super) fn handshake(&self) -> String {
        self.ticket.handshake(self.port)
    }

    /// Makes the ticket invalid for new connections.
    pub(super) fn revoke_ticket(&self) {
        self.authenticator.revoke(&self.ticket);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.revoke_ticket();
        self.session.ended.cancel();
    }
}

/// Serves connections until `stop` is cancelled or the listener fails.
async fn run(
    listener: TcpListener,
    authenticator: Arc<Authenticator>,
    state: Arc<Mutex<Option<State>>>,
    stop: CancellationToken,
    _stopped: DropGuard,
) {
    let mut connections = JoinSet::new();
    let accept = accept(&listener, &authenticator, &mut connections);
    if let Some(cause) = stop.run_until_cancelled(accept).await {
        fail(cause, &authenticator, &state);
    }
    drop(listener);
    connections.shutdown().await;
}

/// Accepts connections until the listener fails.
async fn accept(
    listener: &TcpListener,
    authenticator: &Arc<Authenticator>,
    connections: &mut JoinSet<()>,
) -> io::Error {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection::serve(stream, authenticator.add_peer()));
            }
            Err(error) if is_permanent(&error) => return error,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection of a plugin");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Returns whether no connection can be accepted after this error.
fn is_permanent(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)
    )
}

/// Breaks all plugins, and fails those that register later.
fn fail(cause: io::Error, authenticator: &Authenticator, state: &Mutex<Option<State>>) {
    tracing::error!(error = %cause, "the plugins grpc server has failed");
    let text = format!("the plugins grpc server has failed: {cause}");
    if let Some(listening @ State::Listening { .. }) = lock(state).as_mut() {
        *listening = State::Failed(Arc::new(cause));
    }
    for session in authenticator.sessions() {
        session.fail(SessionError {
            kind: ErrorKind::Crash,
            text: text.clone(),
        });
    }
}
