//! Frames that wait to be written to the plugin.

use std::collections::VecDeque;

use admission_proto::wire::stdio::{HostFrame, ListMetadataReply, host_frame, list_metadata_reply};
use admission_proto::{Status, frame};

use crate::repository::MetadataPage;
use crate::session::listing;

/// Size of one write, in bytes. No frame is added to a batch of this size or more.
const BATCH: usize = 64 << 10;

/// Frames that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Complete frames. Cleared only after all of them are written, so it starts with the start
    /// of a frame.
    batch: Vec<u8>,
    /// Offset of each frame in `batch`.
    starts: Vec<usize>,
    /// How many bytes of `batch` are written.
    written: usize,
    /// Replies that are not in the batch yet, one frame each.
    replies: VecDeque<Vec<u8>>,
    /// Bytes in `replies`.
    reply_bytes: usize,
}

impl Outbox {
    /// Adds a frame to the batch.
    pub(super) fn push(&mut self, frame: host_frame::Frame) {
        self.starts.push(self.batch.len());
        frame::encode(&HostFrame { frame: Some(frame) }, &mut self.batch);
    }

    /// Adds the reply to a metadata call, after the replies that wait already.
    pub(super) fn push_reply(&mut self, call_id: u64, page: Result<MetadataPage, Status>) {
        let result = match listing::to_reply(page) {
            Ok((page, _)) => list_metadata_reply::Result::Page(page),
            Err(status) => list_metadata_reply::Result::Status(status.into()),
        };
        let reply = host_frame::Frame::ListMetadataReply(ListMetadataReply {
            call_id,
            result: Some(result),
        });
        let mut bytes = Vec::new();
        frame::encode(&HostFrame { frame: Some(reply) }, &mut bytes);
        self.reply_bytes += bytes.len();
        self.replies.push_back(bytes);
    }

    /// Returns whether another frame may be added to the batch.
    pub(super) fn has_room(&self) -> bool {
        self.batch.len() < BATCH
    }

    /// Returns how many bytes of replies are not in the batch yet.
    pub(super) fn replies(&self) -> usize {
        self.reply_bytes
    }

    /// Returns the next bytes to write, if there are any.
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

    /// Removes the first `n` bytes of those that [`next`](Self::next) returned.
    pub(super) fn advance(&mut self, n: usize) {
        self.written += n;
        if self.written == self.batch.len() {
            self.batch.clear();
            self.starts.clear();
            self.written = 0;
        }
    }

    /// Drops every frame except one that is partly written.
    pub(super) fn keep_half_written(&mut self) {
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

    fn admission(id: &str) -> host_frame::Frame {
        host_frame::Frame::Admission(Admission {
            admission_id: id.into(),
            ..Admission::default()
        })
    }

    fn encoded(id: &str) -> Vec<u8> {
        let frame = Some(admission(id));
        let mut out = Vec::new();
        frame::encode(&HostFrame { frame }, &mut out);
        out
    }

    #[test]
    fn finishing_keeps_only_the_half_written_frame() {
        let first = encoded("first");
        for (written, kept) in [(0, 0), (1, first.len()), (first.len(), first.len())] {
            let mut outbox = Outbox::default();
            outbox.push(admission("first"));
            outbox.push(admission("second"));
            outbox.push_reply(1, Ok(MetadataPage::default()));
            outbox.next().expect("there is something to write");
            outbox.advance(written);
            outbox.keep_half_written();
            let rest = outbox.next().unwrap_or_default();
            assert_eq!(rest, &first[written..kept], "after {written} bytes");
        }
    }

    #[test]
    fn replies_wait_while_the_batch_is_full() {
        let mut outbox = Outbox::default();
        while outbox.has_room() {
            outbox.push(admission("x"));
        }
        outbox.push_reply(1, Ok(MetadataPage::default()));
        let batch = outbox.next().expect("a batch").len();
        assert!(outbox.replies() > 0);
        outbox.advance(batch);
        outbox.next().expect("the reply");
        assert_eq!(outbox.replies(), 0);
    }

    #[test]
    fn a_page_that_exceeds_a_frame_becomes_an_error_reply() {
        let mut outbox = Outbox::default();
        let mut entry = admission_proto::InstanceMetadata::default();
        entry.value = vec![0; frame::PLUGIN_LIMIT];
        outbox.push_reply(7, Ok(MetadataPage::new(vec![entry], "")));
        assert!(outbox.replies() < 200);
    }
}
