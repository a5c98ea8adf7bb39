//! Frames on their way to the plugin.

use std::collections::VecDeque;

use admission_proto::wire::stdio::HostFrame;
use admission_proto::{Status, frame};

use super::reply_frame;
use crate::repository::MetadataPage;

/// Bytes that are written in one go. No admission is added to a batch beyond it.
const BATCH: usize = 64 << 10;

/// Whole frames, of which the first may be half written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Whole frames that are being written. Emptied only when all of it is written,
    /// so it begins with the beginning of a frame.
    batch: Vec<u8>,
    /// Where in `batch` each frame begins.
    starts: Vec<usize>,
    /// How much of `batch` is written.
    written: usize,
    /// Replies that are not in the batch yet, one frame each.
    replies: VecDeque<Vec<u8>>,
    /// Bytes in `replies`.
    reply_bytes: usize,
}

impl Outbox {
    /// Adds a frame to the batch.
    pub(super) fn push(&mut self, message: &HostFrame) {
        self.starts.push(self.batch.len());
        frame::encode(message, &mut self.batch);
    }

    /// Adds a reply, behind the replies that wait already.
    pub(super) fn push_reply(&mut self, call_id: u64, page: Result<MetadataPage, Status>) {
        let mut frame = Vec::new();
        frame::encode(&reply_frame(call_id, page), &mut frame);
        self.reply_bytes += frame.len();
        self.replies.push_back(frame);
    }

    /// Tells whether the batch takes another admission.
    pub(super) fn has_room(&self) -> bool {
        self.batch.len() < BATCH
    }

    /// Returns how many bytes of replies are not in the batch yet.
    pub(super) fn replies(&self) -> usize {
        self.reply_bytes
    }

    /// Returns what is to be written next, or nothing.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        while self.has_room()
            && let Some(reply) = self.replies.pop_front()
        {
            self.reply_bytes -= reply.len();
            self.starts.push(self.batch.len());
            self.batch.extend(reply);
        }
        let rest = &self.batch[self.written..];
        (!rest.is_empty()).then_some(rest)
    }

    /// Notes that `n` bytes of what [`next`](Self::next) has returned are written.
    pub(super) fn advance(&mut self, n: usize) {
        self.written += n;
        if self.written == self.batch.len() {
            self.batch.clear();
            self.starts.clear();
            self.written = 0;
        }
    }

    /// Drops every frame of which nothing is written yet.
    pub(super) fn keep_only_begun(&mut self) {
        let begun = self.starts.partition_point(|&start| start < self.written);
        if let Some(&end) = self.starts.get(begun) {
            self.batch.truncate(end);
            self.starts.truncate(begun);
        }
        self.replies.clear();
        self.reply_bytes = 0;
        self.advance(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use admission_proto::wire::plugin::Admission;
    use admission_proto::wire::stdio::host_frame;

    fn admission(id: &str) -> HostFrame {
        HostFrame {
            frame: Some(host_frame::Frame::Admission(Admission {
                admission_id: id.into(),
                ..Admission::default()
            })),
        }
    }

    fn encoded(id: &str) -> Vec<u8> {
        let mut out = Vec::new();
        frame::encode(&admission(id), &mut out);
        out
    }

    #[test]
    fn finishing_keeps_the_frame_that_is_half_written_and_no_other() {
        let first = encoded("first");
        for (written, kept) in [(0, 0), (1, first.len()), (first.len(), first.len())] {
            let mut outbox = Outbox::default();
            outbox.push(&admission("first"));
            outbox.push(&admission("second"));
            outbox.push_reply(1, Ok(MetadataPage::default()));
            outbox.next().expect("there is something to write");
            outbox.advance(written);
            outbox.keep_only_begun();
            let rest = outbox.next().unwrap_or_default();
            assert_eq!(rest, &first[written..kept], "after {written} bytes");
        }
    }

    #[test]
    fn replies_wait_while_the_batch_is_full() {
        let mut outbox = Outbox::default();
        while outbox.has_room() {
            outbox.push(&admission("x"));
        }
        outbox.push_reply(1, Ok(MetadataPage::default()));
        let batch = outbox.next().expect("a batch").len();
        assert!(outbox.replies() > 0);
        outbox.advance(batch);
        outbox.next().expect("the reply");
        assert_eq!(outbox.replies(), 0);
    }

    #[test]
    fn a_page_that_fits_no_frame_is_an_error_for_the_plugin() {
        let mut outbox = Outbox::default();
        let mut entry = admission_proto::InstanceMetadata::default();
        entry.value = vec![0; frame::PLUGIN_LIMIT];
        outbox.push_reply(7, Ok(MetadataPage::new(vec![entry], "")));
        assert!(outbox.replies() < 200);
    }
}
