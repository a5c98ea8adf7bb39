//! A subprocess as the rest of the host sees it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::unix::pipe;

use super::output::{Output, Rest};
use super::spawn::Pipes;
use crate::transport::stderr::StderrLog;
use crate::transport::{Exit, Launched, RunningPlugin};

/// Keeps a subprocess until its end: the host itself, or a guard. Dropping it kills.
pub(super) trait Keeper: Send + 'static {
    /// Waits for the exit. Must not be called again once it was ready.
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit>;

    /// Tells whether the subprocess is on its way out.
    fn is_exiting(&self) -> bool;

    /// Waits, after the exit, until nothing is left. Must not be called again once it
    /// was ready.
    fn poll_reaped(&mut self, cx: &mut Context<'_>) -> Poll<bool>;

    /// Makes `poll_exit` ready soon.
    fn kill(&mut self);
}

/// Registers what was spawned with the runtime.
pub(super) fn launched<K: Keeper>(
    keeper: K,
    pipes: Pipes,
    stderr: StderrLog,
) -> io::Result<Launched> {
    let rest = Arc::new(Rest::default());
    let stdout = Output::new(pipes.stdout, Arc::clone(&rest))?;
    let instance = NativeInstance {
        keeper,
        stderr: Some(Output::new(pipes.stderr, Arc::clone(&rest))?),
        log: stderr,
        rest,
    };
    Ok(Launched {
        stdin: Box::pin(pipe::Sender::from_owned_fd(pipes.stdin)?),
        stdout: Box::pin(stdout),
        process: Box::new(instance),
    })
}

struct NativeInstance<K> {
    keeper: K,
    /// `None` once it has ended.
    stderr: Option<Output>,
    log: StderrLog,
    rest: Arc<Rest>,
}

impl<K: Keeper> RunningPlugin for NativeInstance<K> {
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        self.read_stderr(cx);
        let exit = std::task::ready!(self.keeper.poll_exit(cx));
        // From here the pipes give what is in them, and never wait for a grandchild.
        self.rest.begin();
        self.read_stderr(cx);
        self.log.finish();
        Poll::Ready(exit)
    }

    fn is_exiting(&self) -> bool {
        self.keeper.is_exiting()
    }

    fn poll_reaped(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.keeper.poll_reaped(cx)
    }

    fn kill(&mut self) {
        self.keeper.kill();
    }
}

impl<K> NativeInstance<K> {
    fn read_stderr(&mut self, cx: &mut Context<'_>) {
        let mut chunk = [0; 8 << 10];
        while let Some(stderr) = &mut self.stderr {
            let mut buf = ReadBuf::new(&mut chunk);
            match Pin::new(stderr).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.log.write(buf.filled()),
                Poll::Ready(_) => self.stderr = None,
                Poll::Pending => return,
            }
        }
    }
}
