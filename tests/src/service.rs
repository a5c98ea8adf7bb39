//! A CIPD service as its clients see it, which fails as its test says.
//!
//! Speaks HTTP by itself: what a client is to withstand, no library of servers would do.

mod answer;
mod request;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::eventually;

pub use answer::{Answer, Response};
pub use request::Request;

type Script = dyn Fn(usize, &Request) -> Answer + Send + Sync;

/// A service on a port of this machine. Dropping it ends it.
pub struct FakeService {
    url: String,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

/// A port at which no service answers yet: connections are refused.
pub struct ClosedPort {
    socket: TcpSocket,
    address: SocketAddr,
}

struct Shared {
    script: Box<Script>,
    requests: Mutex<Vec<Request>>,
    /// Connections whose client went away while it was to wait for an answer.
    abandoned: AtomicUsize,
}

impl ClosedPort {
    /// Takes a port.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn take() -> Self {
        let take = || {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            let address = socket.local_addr()?;
            Ok::<_, io::Error>(Self { socket, address })
        };
        take().expect("a port of this machine")
    }

    /// Returns the URL of the service that will be there.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts a service that answers its requests, numbered from 0, as `script` does.
    ///
    /// # Panics
    ///
    /// If the port cannot be listened at.
    pub fn serve(
        self,
        script: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static,
    ) -> FakeService {
        FakeService::start_at(self, None, Box::new(script))
    }
}

impl FakeService {
    /// Starts a service that answers its requests, numbered from 0, as `script` does.
    pub fn start(script: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        ClosedPort::take().serve(script)
    }

    /// Starts a service that is reached over TLS.
    pub fn start_tls(
        tls: ServerConfig,
        script: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let tls = TlsAcceptor::from(Arc::new(tls));
        Self::start_at(ClosedPort::take(), Some(tls), Box::new(script))
    }

    fn start_at(port: ClosedPort, tls: Option<TlsAcceptor>, script: Box<Script>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            script,
            requests: Mutex::default(),
            abandoned: AtomicUsize::new(0),
        });
        let listener = port.socket.listen(64).expect("the port is ours");
        Self {
            url: format!("{scheme}://{}", port.address),
            serving: tokio::spawn(Arc::clone(&shared).serve(listener, tls)),
            shared,
        }
    }

    /// Returns the URL under which it is reached.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns what was asked so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests().clone()
    }

    /// Waits until so many requests have come.
    pub async fn wait_for_requests(&self, count: usize) {
        eventually(|| self.shared.requests().len() >= count).await;
    }

    /// Waits until so many clients have gone away from an answer that does not come.
    pub async fn wait_for_abandoned(&self, count: usize) {
        eventually(|| self.shared.abandoned.load(Ordering::SeqCst) >= count).await;
    }
}

impl Drop for FakeService {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        // Its connections end with it.
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("connections come in");
            let (shared, tls) = (Arc::clone(&self), tls.clone());
            connections.spawn(async move {
                // How a connection ends is the client's business, and its test's.
                let _ = shared.connected(stream, tls).await;
            });
        }
    }

    async fn connected(&self, stream: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<()> {
        let socket = stream.as_fd().try_clone_to_owned()?;
        match tls {
            None => self.converse(stream, socket).await,
            Some(tls) => self.converse(tls.accept(stream).await?, socket).await,
        }
    }

    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        socket: OwnedFd,
    ) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(request) = Request::read(&mut stream).await? {
            let answer = {
                let mut requests = self.requests();
                let number = requests.len();
                let answer = (self.script)(number, &request);
                requests.push(request);
                answer
            };
            match answer {
                Answer::Whole(response) => stream.write_all(&response.encode()).await?,
                Answer::Cut(response, bytes) => {
                    let response = response.encode();
                    let end = response.len().saturating_sub(bytes);
                    stream.write_all(&response[..end]).await?;
                    return stream.shutdown().await;
                }
                Answer::Reset => return Ok(set_socket_linger(&socket, Some(Default::default()))?),
                Answer::Silence => {
                    // The client says nothing more: what comes is its end.
                    let _ = stream.read(&mut [0]).await;
                    self.abandoned.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn requests(&self) -> std::sync::MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
