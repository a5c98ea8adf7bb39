//! From a handler's outcome to a status that the host accepts.

use std::any::Any;
use std::mem;

use admission_proto::wire::plugin::ResolveAdmissionRequest;
use admission_proto::wire::stdio::{PluginFrame, plugin_frame};
use admission_proto::wire::{Message as _, rpc};
use admission_proto::{Code, Status};

/// Longest message that is kept of a verdict too large for a frame, in bytes. Hosts show
/// no more than this anyway.
const KEPT_MESSAGE: usize = 4 << 10;

/// Returns the frame that settles a check, cut as needed to be within `limit`.
pub(crate) fn frame(admission_id: &str, outcome: Result<(), Status>, limit: usize) -> PluginFrame {
    /// Tag and length of the envelope's arm.
    const ARM: usize = 5;
    let verdict = request(admission_id, outcome, limit.saturating_sub(ARM));
    PluginFrame {
        frame: Some(plugin_frame::Frame::ResolveAdmission(verdict)),
    }
}

/// Returns the message that settles a check, cut as needed to be within `limit`.
pub(crate) fn request(
    admission_id: &str,
    outcome: Result<(), Status>,
    limit: usize,
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
    shorten(&mut verdict, limit);
    verdict
}

/// Returns the status of a check whose handler panicked with `payload`.
pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Status {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(the panic carries no text)");
    Status::new(
        Code::ABORTED,
        format!("panic in the admission handler: {message}"),
    )
}

/// Shortens `text` to at most `limit` bytes, saying so at its end if there is room.
pub(crate) fn cut(text: &mut String, limit: usize) {
    if text.len() <= limit {
        return;
    }
    let mark = format!("(truncated, {} bytes)", text.len());
    let (kept, mark) = match limit.checked_sub(mark.len()) {
        Some(kept) => (kept, mark.as_str()),
        None => (limit, ""),
    };
    text.truncate(text.floor_char_boundary(kept));
    text.push_str(mark);
}

/// Gives up the length of the message first, then the details, then more of the message.
fn shorten(verdict: &mut ResolveAdmissionRequest, limit: usize) {
    /// Two tags and lengths: of the status and its message.
    const AROUND: usize = 2 * 5;
    if verdict.encoded_len() + AROUND <= limit {
        return;
    }
    let mut message = mem::take(&mut status(verdict).message);
    let room =
        |verdict: &ResolveAdmissionRequest| limit.saturating_sub(verdict.encoded_len() + AROUND);
    if room(verdict) < message.len().min(KEPT_MESSAGE) {
        status(verdict).details.clear();
    }
    cut(&mut message, room(verdict).min(KEPT_MESSAGE));
    status(verdict).message = message;
}

fn status(verdict: &mut ResolveAdmissionRequest) -> &mut rpc::Status {
    verdict.status.get_or_insert_default()
}

#[cfg(test)]
mod tests {
    use admission_proto::{Detail, frame::HOST_LIMIT};

    use super::*;

    fn sent(outcome: Result<(), Status>, limit: usize) -> Status {
        let frame = frame("id", outcome, limit);
        assert!(frame.encoded_len() <= limit);
        match frame.frame {
            Some(plugin_frame::Frame::ResolveAdmission(verdict)) => {
                assert_eq!(verdict.admission_id, "id");
                verdict.status.expect("a verdict has a status").into()
            }
            other => panic!("{other:?} is no verdict"),
        }
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
        assert!(status.message.ends_with("\u{e9}(truncated, 2097152 bytes)"));
        assert!(status.message.len() <= KEPT_MESSAGE);
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
        assert!(status.message.ends_with("(truncated, 5000 bytes)"));
    }

    #[test]
    fn a_panic_is_quoted_if_it_is_text() {
        let of = |payload: &(dyn Any + Send)| panicked(payload).message;
        assert_eq!(of(&"boo"), "panic in the admission handler: boo");
        assert_eq!(
            of(&String::from("boo")),
            "panic in the admission handler: boo"
        );
        assert_eq!(
            of(&42),
            "panic in the admission handler: (the panic carries no text)"
        );
    }
}
