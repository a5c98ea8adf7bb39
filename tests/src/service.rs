//! A fake CIPD service, whose answers and failures a test chooses.
//!
//! Implements HTTP itself, because a server library would not send malformed responses.

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

type Handler = dyn Fn(usize, &Request) -> Answer + Send + Sync;

/// A service on a local port. Dropping it stops the service.
pub struct FakeService {
    url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// A port that is reserved but not listened on: connections are refused.
pub struct ClosedPort {
    socket: TcpSocket,
    address: SocketAddr,
}

struct Shared {
    handler: Box<Handler>,
    requests: Mutex<Vec<Request>>,
    /// Connections that the client closed while it waited for an answer.
    abandoned: AtomicUsize,
}

impl ClosedPort {
    /// Reserves a port.
    ///
    /// # Panics
    ///
    /// If no port is free.
    #[must_use]
    pub fn reserve() -> Self {
        let reserve = || {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            let address = socket.local_addr()?;
            Ok::<_, io::Error>(Self { socket, address })
        };
        reserve().expect("a local port")
    }

    /// Returns the URL of a service on this port.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts a service. `handler` answers the requests, which are numbered from 0.
    ///
    /// # Panics
    ///
    /// If it cannot listen on the port.
    pub fn serve(
        self,
        handler: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static,
    ) -> FakeService {
        FakeService::start_at(self, None, Box::new(handler))
    }
}

impl FakeService {
    /// Starts a service. `handler` answers the requests, which are numbered from 0.
    pub fn start(handler: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        ClosedPort::reserve().serve(handler)
    }

    /// Starts a service over TLS.
    pub fn start_tls(
        tls: ServerConfig,
        handler: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let tls = TlsAcceptor::from(Arc::new(tls));
        Self::start_at(ClosedPort::reserve(), Some(tls), Box::new(handler))
    }

    fn start_at(port: ClosedPort, tls: Option<TlsAcceptor>, handler: Box<Handler>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            handler,
            requests: Mutex::default(),
            abandoned: AtomicUsize::new(0),
        });
        let listener = port.socket.listen(64).expect("a reserved port");
        Self {
            url: format!("{scheme}://{}", port.address),
            task: tokio::spawn(Arc::clone(&shared).serve(listener, tls)),
            shared,
        }
    }

    /// Returns the URL of the service.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests().clone()
    }

    /// Waits until the service has received `count` requests.
    pub async fn wait_for_requests(&self, count: usize) {
        eventually(|| self.shared.requests().len() >= count).await;
    }

    /// Waits until clients have closed `count` connections while they waited for an answer.
    pub async fn wait_for_abandoned(&self, count: usize) {
        eventually(|| self.shared.abandoned.load(Ordering::SeqCst) >= count).await;
    }
}

impl Drop for FakeService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        // Aborts the connections when this task is aborted.
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (shared, tls) = (Arc::clone(&self), tls.clone());
            connections.spawn(async move {
                // An error means that the client closed the connection, which the test checks.
                let _ = shared.serve_connection(stream, tls).await;
            });
        }
    }

    async fn serve_connection(
        &self,
        stream: TcpStream,
        tls: Option<TlsAcceptor>,
    ) -> io::Result<()> {
        let socket = stream.as_fd().try_clone_to_owned()?;
        match tls {
            None => self.answer_requests(stream, socket).await,
            Some(tls) => {
                self.answer_requests(tls.accept(stream).await?, socket)
                    .await
            }
        }
    }

    async fn answer_requests(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        socket: OwnedFd,
    ) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(request) = Request::read(&mut stream).await? {
            let answer = {
                let mut requests = self.requests();
                let number = requests.len();
                let answer = (self.handler)(number, &request);
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
                    // Returns when the client closes the connection.
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
