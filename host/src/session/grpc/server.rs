//! The one server that all plugins of a host call.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection;
use super::line::Line;
use super::tickets::{Ticket, TicketHash};
use super::visitor::Visitor;
use crate::error_kind::ErrorKind;
use crate::session::{SessionError, SessionEvents};
use crate::transport::LaunchError;

/// Connections that may be there without a ticket; a further one takes the place of the
/// oldest.
const MAX_STRANGERS: usize = 64;

/// How long nothing is accepted after a failure that may pass, such as too many open
/// files.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the plugins of one host. Listens from the first plugin on, at one port. Dropping
/// it cuts all connections.
pub(crate) struct Server {
    runtime: Handle,
    lines: Arc<Lines>,
}

/// The plugins that may call.
pub(super) struct Lines {
    state: Mutex<State>,
    /// Ends the listening.
    stop: CancellationToken,
    /// Set when nothing of it is left.
    stopped: CancellationToken,
}

struct State {
    stage: Stage,
    by_ticket: HashMap<TicketHash, Arc<Line>>,
    /// Plugins that were registered and are not gone, with a valid ticket or without.
    plugins: usize,
}

enum Stage {
    Idle,
    Listening {
        port: u16,
    },
    /// For good.
    Failed(Arc<io::Error>),
    /// For good; it goes on for the plugins that are there.
    Closed,
}

/// A plugin that may call. Dropping it revokes its ticket and cuts its connections.
pub(crate) struct Registration {
    lines: Arc<Lines>,
    ticket: Ticket,
    port: u16,
    pub(super) line: Arc<Line>,
}

impl Server {
    /// Creates a server that will listen on `runtime`. Starts nothing.
    pub(crate) fn new(runtime: Handle) -> Self {
        let state = State {
            stage: Stage::Idle,
            by_ticket: HashMap::new(),
            plugins: 0,
        };
        Self {
            runtime,
            lines: Arc::new(Lines {
                state: Mutex::new(state),
                stop: CancellationToken::new(),
                stopped: CancellationToken::new(),
            }),
        }
    }

    /// Lets a plugin call, which `hearer` hears; the first time, begins to listen.
    ///
    /// # Errors
    ///
    /// If the server cannot listen, has failed, or was closed.
    pub(crate) fn register(
        &self,
        events: Arc<dyn SessionEvents>,
    ) -> Result<Registration, LaunchError> {
        let mut state = self.lines.lock();
        let port = match &state.stage {
            Stage::Listening { port } => *port,
            Stage::Closed => return Err(LaunchError::HostClosed),
            Stage::Failed(cause) => return Err(LaunchError::Server(Arc::clone(cause))),
            Stage::Idle => match self.listen() {
                Ok(port) => {
                    state.stage = Stage::Listening { port };
                    port
                }
                Err(cause) => {
                    let cause = Arc::new(cause);
                    self.lines.stopped.cancel();
                    state.stage = Stage::Failed(Arc::clone(&cause));
                    return Err(LaunchError::Server(cause));
                }
            },
        };
        let ticket = Ticket::new();
        let line = Arc::new(Line::new(events));
        state.by_ticket.insert(ticket.hash(), Arc::clone(&line));
        state.plugins += 1;
        Ok(Registration {
            lines: Arc::clone(&self.lines),
            ticket,
            port,
            line,
        })
    }

    /// Takes no more plugins, and stops once those that are there are gone.
    pub(crate) fn close(&self) {
        let mut state = self.lines.lock();
        if let Stage::Idle = state.stage {
            self.lines.stopped.cancel();
        }
        state.stage = Stage::Closed;
        self.lines.stop_if_unused(&state);
    }

    /// Waits, once it was closed, until nothing of it is left.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        self.lines.stopped.clone().cancelled_owned()
    }

    fn listen(&self) -> io::Result<u16> {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let _in_runtime = self.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let listening = Listening {
            listener,
            lines: Arc::clone(&self.lines),
            strangers: VecDeque::new(),
            connections: JoinSet::new(),
            _stopped: self.lines.stopped.clone().drop_guard(),
        };
        // It ends when it is told to, and says that it has by its drop.
        self.runtime.spawn(listening.run());
        Ok(port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lines.stop.cancel();
    }
}

impl Registration {
    /// Returns the line that tells the plugin where to call.
    pub(super) fn handshake(&self) -> String {
        self.ticket.handshake(self.port)
    }

    /// Makes the ticket invalid for new connections.
    pub(super) fn revoke(&self) {
        let revoked = self.lines.lock().by_ticket.remove(&self.ticket.hash());
        drop(revoked);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.revoke();
        self.line.cut();
        let mut state = self.lines.lock();
        state.plugins -= 1;
        self.lines.stop_if_unused(&state);
    }
}

impl Lines {
    /// Returns the plugin with this ticket.
    pub(super) fn find(&self, ticket: TicketHash) -> Option<Arc<Line>> {
        self.lock().by_ticket.get(&ticket).cloned()
    }

    fn stop_if_unused(&self, state: &State) {
        if state.plugins == 0 && matches!(state.stage, Stage::Closed) {
            self.stop.cancel();
        }
    }

    /// Notes that the server serves no more, and tells every plugin.
    fn fail(&self, cause: io::Error) {
        let mut state = self.lock();
        let text = format!("the plugins grpc server has failed: {cause}");
        tracing::error!(error = %cause, "the plugins grpc server has failed");
        if let Stage::Listening { .. } = state.stage {
            state.stage = Stage::Failed(Arc::new(cause));
        }
        let lines: Vec<_> = state.by_ticket.values().cloned().collect();
        drop(state);
        for line in lines {
            line.fail(SessionError {
                kind: ErrorKind::Crash,
                text: text.clone(),
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that accepts connections, and owns theirs.
struct Listening {
    listener: TcpListener,
    lines: Arc<Lines>,
    /// Those that have shown no ticket, the oldest first; and some that have since.
    strangers: VecDeque<Weak<Visitor>>,
    connections: JoinSet<()>,
    _stopped: DropGuard,
}

impl Listening {
    async fn run(mut self) {
        let lines = Arc::clone(&self.lines);
        tokio::select! {
            biased;
            () = lines.stop.cancelled() => {}
            cause = self.accept() => lines.fail(cause),
        }
        drop(self.listener);
        self.connections.shutdown().await;
    }

    /// Accepts connections until that is no longer possible.
    async fn accept(&mut self) -> io::Error {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_ended) = self.connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let visitor = self.receive();
                    self.connections.spawn(connection::serve(stream, visitor));
                }
                Err(error) if is_final(&error) => return error,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection of a plugin");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Takes in whoever has connected, if need be in the place of another.
    fn receive(&mut self) -> Arc<Visitor> {
        self.strangers.retain(|visitor| {
            let visitor = visitor.upgrade();
            visitor.is_some_and(|visitor| visitor.is_stranger())
        });
        if self.strangers.len() >= MAX_STRANGERS
            && let Some(oldest) = self
                .strangers
                .pop_front()
                .and_then(|oldest| oldest.upgrade())
        {
            oldest.dismiss();
        }
        let visitor = Arc::new(Visitor::new(Arc::clone(&self.lines)));
        self.strangers.push_back(Arc::downgrade(&visitor));
        visitor
    }
}

/// Tells whether nothing will ever be accepted again.
fn is_final(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)
    )
}
