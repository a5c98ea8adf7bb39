//! The message of a verdict, within the host's frame limit.

use std::mem;

use admission_proto::wire::plugin::ResolveAdmissionRequest;
use admission_proto::wire::{Message as _, rpc};
use admission_proto::{Code, Status, truncate};

use crate::outbox::ENVELOPE;

/// Longest status message of a verdict that was cut to fit its frame, in bytes. Hosts show no
/// more of a message.
const MAX_CUT_MESSAGE: usize = 4 << 10;

/// Returns the message that settles a check. It is cut so that its frame has at most
/// `frame_limit` bytes.
pub(crate) fn message(
    admission_id: &str,
    outcome: Result<(), Status>,
    frame_limit: usize,
) -> ResolveAdmissionRequest {
    let status = match outcome {
        Ok(()) => Status::new(Code::OK, ""),
        Err(status) if status.code == Code::OK => {
            Status::new(Code::INTERNAL, "the handler returned an error with code OK")
        }
        Err(status) => status,
    };
    let mut verdict = ResolveAdmissionRequest {
        admission_id: admission_id.to_owned(),
        status: Some(status.into()),
    };
    shorten(&mut verdict, frame_limit.saturating_sub(ENVELOPE));
    verdict
}

/// Shortens the status message first, then drops the details, then shortens the message more.
fn shorten(verdict: &mut ResolveAdmissionRequest, limit: usize) {
    /// Room for the tags and lengths of the status and of its message, in bytes.
    const TAGS: usize = 2 * 5;
    if verdict.encoded_len() + TAGS <= limit {
        return;
    }
    let message = mem::take(&mut status(verdict).message);
    let room =
        |verdict: &ResolveAdmissionRequest| limit.saturating_sub(verdict.encoded_len() + TAGS);
    if room(verdict) < message.len().min(MAX_CUT_MESSAGE) {
        status(verdict).details.clear();
    }
    let cut = truncate(&message, room(verdict).min(MAX_CUT_MESSAGE));
    status(verdict).message = cut.into_owned();
}

fn status(verdict: &mut ResolveAdmissionRequest) -> &mut rpc::Status {
    verdict.status.get_or_insert_default()
}

#[cfg(test)]
mod tests {
    use admission_proto::wire::stdio::{PluginFrame, plugin_frame::Frame};
    use admission_proto::{Detail, frame::HOST_LIMIT};

    use super::*;

    fn sent(outcome: Result<(), Status>, limit: usize) -> Status {
        let verdict = message("id", outcome, limit);
        assert_eq!(verdict.admission_id, "id");
        let frame = PluginFrame {
            frame: Some(Frame::ResolveAdmission(verdict.clone())),
        };
        assert!(frame.encoded_len() <= limit);
        verdict.status.expect("a verdict has a status").into()
    }

    #[test]
    fn an_admission_is_a_present_status_with_code_0() {
        assert_eq!(sent(Ok(()), HOST_LIMIT), Status::new(Code::OK, ""));
    }

    #[test]
    fn an_error_with_code_ok_does_not_admit() {
        let status = sent(Err(Status::new(Code::OK, "fine")), HOST_LIMIT);
        assert_eq!(status.code, Code::INTERNAL);
        assert_eq!(status.message, "the handler returned an error with code OK");
    }

    #[test]
    fn a_verdict_that_fits_is_sent_as_it_is() {
        let status = Status::denied("x".repeat(100_000)).with_detail(Detail {
            type_url: "t".into(),
            value: vec![1; 1000],
        });
        assert_eq!(sent(Err(status.clone()), HOST_LIMIT), status);
    }

    #[test]
    fn a_long_message_is_cut_before_details_are_dropped() {
        let detail = Detail {
            type_url: "t".into(),
            value: vec![1; 1000],
        };
        let long = Status::denied("\u{e9}".repeat(1 << 20)).with_detail(detail.clone());
        let status = sent(Err(long), HOST_LIMIT);
        assert_eq!(status.code, Code::FAILED_PRECONDITION);
        assert!(
            status
                .message
                .ends_with("\u{e9} (truncated, 2097152 bytes)")
        );
        assert!(status.message.len() <= MAX_CUT_MESSAGE);
        assert_eq!(status.details, [detail]);
    }

    #[test]
    fn details_that_do_not_fit_are_dropped() {
        let status = Status::denied("no").with_detail(Detail {
            type_url: "t".into(),
            value: vec![1; 2 << 20],
        });
        assert_eq!(sent(Err(status), HOST_LIMIT), Status::denied("no"));
    }

    #[test]
    fn a_host_with_a_small_limit_gets_a_shorter_message() {
        let status = sent(Err(Status::denied("y".repeat(5000))), 200);
        assert!(status.message.starts_with("yyy"));
        assert!(status.message.ends_with(" (truncated, 5000 bytes)"));
    }
}
