//! The gRPC wire: a thread on which frames become calls, and admissions become checks.
//!
//! What handlers say is queued as on the other wire. A host has heard every line that a
//! handler logged when it hears the verdict.

mod lanes;
mod session;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::subscriber::{NoSubscriber, set_default};

use self::session::Session;
use super::connection::{Connection, SEND_LIMIT, StdinEnded};
use super::handshake::{self, Handshake};
use super::stdio::Input;
use super::{Talk, spawn};
use crate::{Handler, RunError};

/// How long a failure waits for the end of stdin, which explains it: a host that closes
/// takes the ticket back, stops to listen and ends stdin, in any order.
const END_GRACE: Duration = Duration::from_millis(50);

/// Reads the handshake line, of which `first` are the first bytes, has the connection
/// served, and reads until stdin ends.
pub(super) fn converse<H: Handler>(
    input: &Input,
    first: Vec<u8>,
    talk: &Arc<Talk<H>>,
) -> Result<(), RunError> {
    let handshake = handshake::read(input, first)?;
    // Dropped at the end of stdin.
    let (_end, ended) = watch::channel(());
    let serving = Arc::clone(talk);
    spawn("admission-grpc", move || {
        let outcome = serve(&handshake, ended, &serving);
        serving.written(outcome);
    })?;
    handshake::drain(input)
}

fn serve<H: Handler>(
    handshake: &Handshake,
    stdin: StdinEnded,
    talk: &Talk<H>,
) -> Result<(), RunError> {
    // What the libraries of the wire log would go to the host by the same libraries.
    let _quiet = set_default(NoSubscriber::default());
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Thread)?;
    talk.conversation.set_frame_limit(SEND_LIMIT);
    runtime.block_on(async {
        let (connection, serving) = Connection::connect(handshake, stdin).await?;
        let serving = runtime.handle().spawn(serving);
        let mut session = Session::new(&connection, serving, &talk.conversation);
        let start = |check| talk.start(check);
        let outcome = poll_fn(|cx| session.poll(cx, start)).await;
        match outcome {
            Err(_) if timeout(END_GRACE, connection.ended()).await.is_ok() => Ok(()),
            outcome => outcome,
        }
    })
}
