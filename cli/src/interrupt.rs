//! The signals that ask this process to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that asks this process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// SIGINT, as from Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl Interrupt {
    /// Returns the exit status that a shell gives to a process which such a signal ends.
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// Makes SIGINT end this process no longer.
///
/// Not by ignoring it, which processes that are started from here would inherit.
///
/// # Errors
///
/// If the system refuses. Must be called inside a tokio runtime.
pub(crate) fn outlive_interrupts() -> io::Result<()> {
    // The handler stays in place when the stream of signals is dropped.
    signal(SignalKind::interrupt()).map(drop)
}

/// Listens for signals, which no longer end the process by themselves.
pub(crate) struct Interrupts {
    interrupted: Signal,
    terminated: Signal,
}

impl Interrupts {
    /// Begins to listen. Must be called inside a tokio runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    ///
    /// No signal is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Interrupt {
        tokio::select! {
            _ = self.interrupted.recv() => Interrupt::Interrupted,
            _ = self.terminated.recv() => Interrupt::Terminated,
        }
    }
}
