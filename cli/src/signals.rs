//! The signals that ask this process to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Stops SIGINT from terminating this process.
///
/// Does not ignore the signal, because child processes would inherit that.
///
/// # Errors
///
/// If the system refuses the handler.
///
/// # Panics
///
/// Outside of a tokio runtime.
pub(crate) fn survive_sigint() -> io::Result<()> {
    // The handler stays in place when the stream of signals is dropped.
    signal(SignalKind::interrupt()).map(drop)
}

/// Receives SIGINT and SIGTERM, which no longer terminate the process by themselves.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal. Returns the exit status that a shell reports for a process
    /// that the signal terminates.
    ///
    /// # Cancel safety
    ///
    /// No signal is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}
