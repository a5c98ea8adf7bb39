//! Stdin and stdout of a native plugin, and the wire of frames over them.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::stdio::{dup2_stdin, dup2_stdout, stderr, stdin, stdout};
use tokio::runtime::Builder;

use super::RunLoop;
use crate::inbound::FrameReader;
use crate::outbox;
use crate::session::Session;
use crate::{Handler, RunError};

/// Bytes of one read: about 400 admissions.
const READ_SIZE: usize = 64 << 10;

/// Lowest descriptor for the duplicates. If the parent left a standard stream closed, a
/// duplicate could get its number, and child processes would inherit it as that stream.
const ABOVE_STDERR: i32 = 3;

/// The plugin's end of stdin, which the host writes.
pub(super) struct Input(OwnedFd);

/// The plugin's end of stdout, which the host reads.
pub(super) struct Output(OwnedFd);

/// Takes private duplicates of stdin and stdout that no child process inherits. Afterwards
/// stdin is empty and stdout goes to stderr, so that neither `println!` nor a child process
/// can write between the frames. They are not restored.
pub(super) fn take() -> io::Result<(Input, Output)> {
    let input = fcntl_dupfd_cloexec(stdin(), ABOVE_STDERR)?;
    let output = fcntl_dupfd_cloexec(stdout(), ABOVE_STDERR)?;
    let empty = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(empty)?;
    dup2_stdout(stderr())?;
    // Text that was printed before and is still buffered goes to stderr, or is lost if stderr
    // is closed.
    let _ = io::stdout().flush();
    Ok((Input(input), Output(output)))
}

/// Reads frames until stdin ends, and writes the outbox on another thread. `first` are the
/// first bytes of stdin.
pub(super) fn serve<H: Handler>(
    input: &Input,
    output: Output,
    first: &[u8],
    run_loop: &Arc<RunLoop<H>>,
) -> Result<(), RunError> {
    run_loop.spawn_writer("admission-write", move |run_loop| {
        let runtime = Builder::new_current_thread().build();
        let writing = write(&output, &run_loop.session);
        runtime.map_err(RunError::Thread)?.block_on(writing)
    })?;
    read(input, first, run_loop)
}

fn read<H: Handler>(input: &Input, first: &[u8], run_loop: &RunLoop<H>) -> Result<(), RunError> {
    let mut frames = FrameReader::default();
    frames.push(first);
    let mut bytes = vec![0; READ_SIZE];
    loop {
        while let Some(inbound) = frames.next()? {
            if let Some(check) = run_loop.session.receive(inbound) {
                run_loop.start(check);
            }
        }
        let count = input.read(&mut bytes)?;
        if count == 0 {
            return frames.finish();
        }
        frames.push(&bytes[..count]);
    }
}

/// Writes the outbox until it is closed. Blocks the thread while the host does not read.
async fn write(output: &Output, session: &Session) -> Result<(), RunError> {
    let mut bytes = Vec::new();
    while let Some(batch) = session.outbox.take().await {
        bytes.clear();
        let verdicts = outbox::encode(batch, &mut bytes);
        output.write_all(&bytes).map_err(|source| RunError::Write {
            pending: session.pending(),
            source,
        })?;
        session.verdicts_written(verdicts);
    }
    Ok(())
}

impl Input {
    /// Waits for the first byte and reads the available ones. Returns 0 at the end.
    fn read(&self, bytes: &mut [u8]) -> Result<usize, RunError> {
        retry_on_intr(|| rustix::io::read(&self.0, &mut *bytes))
            .map_err(|errno| RunError::Read(errno.into()))
    }

    /// Appends at least one byte to `bytes`. Returns `false` at the end.
    pub(super) fn read_more(&self, bytes: &mut Vec<u8>) -> Result<bool, RunError> {
        let mut more = [0; 512];
        let count = self.read(&mut more)?;
        bytes.extend_from_slice(&more[..count]);
        Ok(count > 0)
    }
}

impl Output {
    fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match retry_on_intr(|| rustix::io::write(&self.0, bytes))? {
                0 => return Err(Errno::IO.into()),
                count => bytes = &bytes[count..],
            }
        }
        Ok(())
    }
}
