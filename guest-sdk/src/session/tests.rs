//! Tests of a session without streams: they pass frames in and take frames from the outbox.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use admission_proto::wire::stdio::list_metadata_reply;
use futures_util::FutureExt as _;

use super::*;

type Visit = Pin<Box<dyn Future<Output = Result<ListMetadataResponse, Status>>>>;

fn new_session() -> Arc<Session> {
    Arc::new(Session::new("1"))
}

fn open_check(session: &Session) -> Arc<Check> {
    let admission = plugin::Admission {
        admission_id: "id".into(),
        ..Default::default()
    };
    session
        .receive(Inbound::Admission(admission))
        .expect("an admission opens a check")
}

/// Takes all queued frames.
fn take_sent(session: &Session) -> Vec<Outbound> {
    let batch = session.outbox.take().now_or_never();
    batch.flatten().unwrap_or_default()
}

/// Returns the IDs of the queued metadata calls, and fails if there are other frames.
fn call_ids(session: &Session) -> Vec<u64> {
    let call_id = |frame| match frame {
        Outbound::MetadataCall(call) => call.call_id,
        other => panic!("{other:?} is not a metadata call"),
    };
    take_sent(session).into_iter().map(call_id).collect()
}

fn visit(session: &Arc<Session>, check: &Arc<Check>) -> Visit {
    let (session, check) = (Arc::clone(session), Arc::clone(check));
    Box::pin(async move {
        session
            .list_metadata(&check, ListMetadataRequest::default())
            .await
    })
}

fn poll(visit: &mut Visit) -> Poll<Result<ListMetadataResponse, Status>> {
    visit.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn expect_end(visit: &mut Visit) -> Result<ListMetadataResponse, Code> {
    match poll(visit) {
        Poll::Ready(result) => result.map_err(|status| status.code),
        Poll::Pending => panic!("it is pending"),
    }
}

fn reply(call_id: u64, result: Option<list_metadata_reply::Result>) -> Inbound {
    Inbound::MetadataReply(ListMetadataReply { call_id, result })
}

fn page(call_id: u64) -> Inbound {
    let page = ListMetadataResponse::default();
    reply(call_id, Some(list_metadata_reply::Result::Page(page)))
}

#[test]
fn a_hello_of_any_version_is_answered_with_the_plugins_version() {
    let session = new_session();
    let hello = Hello {
        protocol_version: 7,
        ..Hello::default()
    };
    assert!(session.receive(Inbound::Hello(hello)).is_none());
    let answer = ListAdmissionsRequest {
        protocol_version: 1,
        plugin_version: "1".into(),
    };
    assert_eq!(take_sent(&session), [Outbound::Connect(answer)]);
}

#[test]
fn verdicts_and_metadata_calls_respect_the_hosts_frame_limit() {
    let session = new_session();
    let hello = Hello {
        max_frame_size: 200,
        ..Hello::default()
    };
    session.receive(Inbound::Hello(hello));
    take_sent(&session);
    let check = open_check(&session);
    let request = ListMetadataRequest {
        keys: vec!["k".repeat(200)],
        ..ListMetadataRequest::default()
    };
    let too_long = Arc::clone(&session);
    let its = Arc::clone(&check);
    let mut visit: Visit = Box::pin(async move { too_long.list_metadata(&its, request).await });
    assert_eq!(expect_end(&mut visit), Err(Code::INVALID_ARGUMENT));
    session.settle(&check, Err(Status::denied("x".repeat(1000))));
    let frames = take_sent(&session);
    let [Outbound::Verdict(verdict)] = &frames[..] else {
        panic!("{frames:?} is not a verdict");
    };
    assert!(verdict.encoded_len() <= 200);
}

#[test]
fn a_second_verdict_on_a_check_is_dropped() {
    let session = new_session();
    let check = open_check(&session);
    session.settle(&check, Err(Status::denied("no")));
    session.settle(&check, Ok(()));
    assert_eq!(take_sent(&session).len(), 1);
}

#[test]
fn a_check_is_pending_until_its_verdict_is_written() {
    let session = new_session();
    let (one, _other) = (open_check(&session), open_check(&session));
    session.settle(&one, Ok(()));
    assert_eq!(session.pending(), 2);
    session.verdicts_written(1);
    assert_eq!(session.pending(), 1);
}

#[test]
fn replies_reach_their_callers_in_any_order() {
    let session = new_session();
    let check = open_check(&session);
    let mut visits = [visit(&session, &check), visit(&session, &check)];
    assert!(visits.iter_mut().all(|visit| poll(visit).is_pending()));
    let ids = call_ids(&session);
    session.receive(page(ids[1]));
    assert!(poll(&mut visits[0]).is_pending());
    assert!(expect_end(&mut visits[1]).is_ok());
    session.receive(page(ids[0]));
    assert!(expect_end(&mut visits[0]).is_ok());
}

#[test]
fn a_reply_with_neither_page_nor_error_is_an_internal_error() {
    let session = new_session();
    let check = open_check(&session);
    let admitted = list_metadata_reply::Result::Status(Default::default());
    for result in [None, Some(admitted)] {
        let mut visit = visit(&session, &check);
        assert!(poll(&mut visit).is_pending());
        let ids = call_ids(&session);
        session.receive(reply(ids[0], result));
        assert_eq!(expect_end(&mut visit), Err(Code::INTERNAL));
    }
}

#[test]
fn an_abandoned_call_keeps_its_slot_until_the_host_replies() {
    let session = new_session();
    let check = open_check(&session);
    let mut visits: Vec<Visit> = (0..9).map(|_| visit(&session, &check)).collect();
    assert!(visits.iter_mut().all(|visit| poll(visit).is_pending()));
    let ids = call_ids(&session);
    assert_eq!(ids.len(), 8);
    let mut ninth = visits.pop().expect("there are nine");
    visits.clear();
    assert!(poll(&mut ninth).is_pending());
    assert!(call_ids(&session).is_empty());
    session.receive(page(ids[0]));
    assert!(poll(&mut ninth).is_pending());
    assert_eq!(call_ids(&session).len(), 1);
}

#[test]
fn a_verdict_ends_the_calls_of_its_check_and_frees_their_slots() {
    let session = new_session();
    let (one, other) = (open_check(&session), open_check(&session));
    let mut visits: Vec<Visit> = (0..8).map(|_| visit(&session, &one)).collect();
    assert!(visits.iter_mut().all(|visit| poll(visit).is_pending()));
    let mut waiting = visit(&session, &other);
    assert!(poll(&mut waiting).is_pending());
    take_sent(&session);
    session.settle(&one, Ok(()));
    take_sent(&session);
    assert_eq!(expect_end(&mut visits[0]), Err(Code::CANCELLED));
    assert!(poll(&mut waiting).is_pending());
    assert_eq!(call_ids(&session).len(), 1);
    assert_eq!(expect_end(&mut visit(&session, &one)), Err(Code::CANCELLED));
}

#[test]
fn the_end_of_the_session_cancels_calls_in_flight_and_later_ones() {
    let session = new_session();
    let check = open_check(&session);
    let mut waiting = visit(&session, &check);
    assert!(poll(&mut waiting).is_pending());
    session.end();
    assert_eq!(expect_end(&mut waiting), Err(Code::CANCELLED));
    assert_eq!(
        expect_end(&mut visit(&session, &check)),
        Err(Code::CANCELLED)
    );
}

#[test]
fn a_reply_to_an_unknown_call_is_ignored() {
    let session = new_session();
    session.receive(page(99));
    assert_eq!(take_sent(&session), Vec::new());
}
