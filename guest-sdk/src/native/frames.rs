//! The stdio wire: a thread that reads frames and one that writes them.

use std::future::poll_fn;
use std::sync::Arc;

use super::stdio::{Input, Output};
use super::{Talk, signal, spawn};
use crate::conversation::Conversation;
use crate::inbox::Inbox;
use crate::{Handler, RunError};

/// Bytes asked for at once: some 400 admissions.
const READ_SIZE: usize = 64 << 10;

/// Reads frames, of which `first` are the first bytes, until stdin ends; starts to write
/// as well.
pub(super) fn converse<H: Handler>(
    input: &Input,
    output: Output,
    first: &[u8],
    talk: &Arc<Talk<H>>,
) -> Result<(), RunError> {
    let writing = Arc::clone(talk);
    spawn("admission-write", move || {
        let outcome = write(&output, &writing.conversation);
        writing.written(outcome);
    })?;
    read(input, first, talk)
}

fn read<H: Handler>(input: &Input, first: &[u8], talk: &Arc<Talk<H>>) -> Result<(), RunError> {
    let mut inbox = Inbox::default();
    inbox.extend(first);
    let mut bytes = vec![0; READ_SIZE];
    loop {
        while let Some(heard) = inbox.next()? {
            if let Some(check) = talk.conversation.hear(heard) {
                talk.start(check);
            }
        }
        let count = input.read(&mut bytes)?;
        if count == 0 {
            return inbox.finish();
        }
        inbox.extend(&bytes[..count]);
    }
}

fn write(output: &Output, conversation: &Conversation) -> Result<(), RunError> {
    let next = || signal::block_on(poll_fn(|cx| conversation.outbox().poll_take(cx)));
    while let Some(batch) = next() {
        output
            .write_all(&batch.bytes)
            .map_err(|source| RunError::Write {
                owed: conversation.owed(),
                source,
            })?;
        conversation.wrote(batch.verdicts);
    }
    Ok(())
}
