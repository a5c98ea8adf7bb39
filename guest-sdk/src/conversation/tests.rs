//! A conversation without streams: frames go in by hand and come out of the outbox.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use admission_proto::frame;
use admission_proto::wire::stdio::{ListMetadataReply, list_metadata_reply};
use bytes::BytesMut;

use super::*;

type Visit = Pin<Box<dyn Future<Output = Result<ListMetadataResponse, Status>>>>;

fn conversation() -> Arc<Conversation> {
    Arc::new(Conversation::new("1"))
}

fn check(conversation: &Conversation) -> Arc<Check> {
    let admission = admission_proto::wire::plugin::Admission {
        admission_id: "id".into(),
        ..Default::default()
    };
    conversation
        .hear(Heard::Admission(admission))
        .expect("an admission opens a check")
}

/// Takes all frames that are queued.
fn sent(conversation: &Conversation) -> Vec<Frame> {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Some(batch)) = conversation.outbox().poll_take(&mut cx) else {
        return Vec::new();
    };
    let mut bytes = BytesMut::from(&batch.bytes[..]);
    let mut frames = Vec::new();
    while let Some(frame) =
        frame::take::<PluginFrame>(&mut bytes, HOST_LIMIT).expect("the frames are whole")
    {
        frames.push(frame.frame.expect("the frame is a known one"));
    }
    frames
}

/// Returns the IDs of the metadata calls that are queued; nothing else may be.
fn calls(conversation: &Conversation) -> Vec<u64> {
    let call_id = |frame| match frame {
        Frame::ListMetadata(call) => call.call_id,
        other => panic!("{other:?} is no metadata call"),
    };
    sent(conversation).into_iter().map(call_id).collect()
}

fn visit(conversation: &Arc<Conversation>, check: &Arc<Check>) -> Visit {
    let (conversation, check) = (Arc::clone(conversation), Arc::clone(check));
    Box::pin(async move {
        conversation
            .list_metadata(&check, ListMetadataRequest::default())
            .await
    })
}

fn poll(visit: &mut Visit) -> Poll<Result<ListMetadataResponse, Status>> {
    visit.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn ended(visit: &mut Visit) -> Result<ListMetadataResponse, Code> {
    match poll(visit) {
        Poll::Ready(result) => result.map_err(|status| status.code),
        Poll::Pending => panic!("it still waits"),
    }
}

fn reply(call_id: u64, result: Option<list_metadata_reply::Result>) -> Heard {
    Heard::Reply(ListMetadataReply { call_id, result })
}

fn page(call_id: u64) -> Heard {
    let page = ListMetadataResponse::default();
    reply(call_id, Some(list_metadata_reply::Result::Page(page)))
}

#[test]
fn a_hello_is_answered_at_once_with_our_own_version_whatever_the_hosts() {
    let conversation = conversation();
    let hello = Hello {
        protocol_version: 7,
        ..Hello::default()
    };
    assert!(conversation.hear(Heard::Hello(hello)).is_none());
    let answer = ListAdmissionsRequest {
        protocol_version: 1,
        plugin_version: "1".into(),
    };
    assert_eq!(sent(&conversation), [Frame::ListAdmissions(answer)]);
}

#[test]
fn the_hosts_frame_limit_holds_for_verdicts_and_calls() {
    let conversation = conversation();
    let hello = Hello {
        max_frame_size: 200,
        ..Hello::default()
    };
    conversation.hear(Heard::Hello(hello));
    sent(&conversation);
    let check = check(&conversation);
    let request = ListMetadataRequest {
        keys: vec!["k".repeat(200)],
        ..ListMetadataRequest::default()
    };
    let too_long = Arc::clone(&conversation);
    let its = Arc::clone(&check);
    let mut visit: Visit = Box::pin(async move { too_long.list_metadata(&its, request).await });
    assert_eq!(ended(&mut visit), Err(Code::INVALID_ARGUMENT));
    conversation.decide(&check, Err(Status::denied("x".repeat(1000))));
    let frames = sent(&conversation);
    let [Frame::ResolveAdmission(verdict)] = &frames[..] else {
        panic!("{frames:?} is no verdict");
    };
    assert!(verdict.encoded_len() <= 200);
}

#[test]
fn the_first_verdict_on_a_check_is_the_only_one() {
    let conversation = conversation();
    let check = check(&conversation);
    conversation.decide(&check, Err(Status::denied("no")));
    conversation.decide(&check, Ok(()));
    assert_eq!(sent(&conversation).len(), 1);
}

#[test]
fn a_verdict_is_owed_until_it_is_written() {
    let conversation = conversation();
    let (one, _other) = (check(&conversation), check(&conversation));
    conversation.decide(&one, Ok(()));
    assert_eq!(conversation.owed(), 2);
    conversation.wrote(1);
    assert_eq!(conversation.owed(), 1);
}

#[test]
fn replies_reach_their_callers_in_any_order() {
    let conversation = conversation();
    let check = check(&conversation);
    let mut visits = [visit(&conversation, &check), visit(&conversation, &check)];
    assert!(visits.iter_mut().all(|visit| poll(visit).is_pending()));
    let ids = calls(&conversation);
    conversation.hear(page(ids[1]));
    assert!(poll(&mut visits[0]).is_pending());
    assert!(ended(&mut visits[1]).is_ok());
    conversation.hear(page(ids[0]));
    assert!(ended(&mut visits[0]).is_ok());
}

#[test]
fn a_reply_with_neither_page_nor_error_is_an_internal_error() {
    let conversation = conversation();
    let check = check(&conversation);
    let admitted = list_metadata_reply::Result::Status(Default::default());
    for result in [None, Some(admitted)] {
        let mut visit = visit(&conversation, &check);
        assert!(poll(&mut visit).is_pending());
        let ids = calls(&conversation);
        conversation.hear(reply(ids[0], result));
        assert_eq!(ended(&mut visit), Err(Code::INTERNAL));
    }
}

#[test]
fn a_caller_that_gives_up_keeps_its_place_until_the_host_is_done() {
    let conversation = conversation();
    let check = check(&conversation);
    let mut visits: Vec<Visit> = (0..9).map(|_| visit(&conversation, &check)).collect();
    assert!(visits.iter_mut().all(|visit| poll(visit).is_pending()));
    let ids = calls(&conversation);
    assert_eq!(ids.len(), 8);
    let mut ninth = visits.pop().expect("there are nine");
    visits.clear();
    assert!(poll(&mut ninth).is_pending());
    assert!(calls(&conversation).is_empty());
    conversation.hear(page(ids[0]));
    assert!(poll(&mut ninth).is_pending());
    assert_eq!(calls(&conversation).len(), 1);
}

#[test]
fn a_verdict_ends_the_calls_of_its_check_and_frees_their_places() {
    let conversation = conversation();
    let (one, other) = (check(&conversation), check(&conversation));
    let mut visits: Vec<Visit> = (0..8).map(|_| visit(&conversation, &one)).collect();
    assert!(visits.iter_mut().all(|visit| poll(visit).is_pending()));
    let mut waiting = visit(&conversation, &other);
    assert!(poll(&mut waiting).is_pending());
    sent(&conversation);
    conversation.decide(&one, Ok(()));
    sent(&conversation);
    assert_eq!(ended(&mut visits[0]), Err(Code::CANCELLED));
    assert!(poll(&mut waiting).is_pending());
    assert_eq!(calls(&conversation).len(), 1);
    assert_eq!(ended(&mut visit(&conversation, &one)), Err(Code::CANCELLED));
}

#[test]
fn the_end_cancels_the_calls_that_wait_and_those_to_come() {
    let conversation = conversation();
    let check = check(&conversation);
    let mut waiting = visit(&conversation, &check);
    assert!(poll(&mut waiting).is_pending());
    conversation.end();
    assert_eq!(ended(&mut waiting), Err(Code::CANCELLED));
    assert_eq!(
        ended(&mut visit(&conversation, &check)),
        Err(Code::CANCELLED)
    );
}

#[test]
fn a_reply_to_a_call_never_made_is_ignored() {
    let conversation = conversation();
    conversation.hear(page(99));
    assert_eq!(sent(&conversation), []);
}
