//! Plugins that want more at once than one plugin may have.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::process::ExitCode;
use std::thread;

use admission_grpc::host_client::HostClient;
use admission_proto::wire::plugin::{Admission, LogRequest};
use futures_util::stream::{self, StreamExt as _};
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::odd::{answer_with, outcome};
use crate::wire::Wire;

/// Longest message of one call, in bytes.
const LONGEST: usize = 4 << 20;

/// Calls with such a message that may be under way at once.
const LONG_CALLS: usize = 16;

/// Connections that a plugin may have, and those that there may be without a ticket.
const CONNECTIONS: usize = 64;

/// Calls that a stranger begins in one write.
const FLOOD: u32 = 1_000;

/// Returns `None` if there is no such mode.
pub(crate) fn run(argument: &str) -> Option<ExitCode> {
    match argument {
        "second-message" => Wire::new().connect_and(answer_with(second_message)),
        "long-calls" => Wire::new().connect_and(answer_with(long_calls)),
        "flooding-stranger" => Wire::new().connect_and(answer_with(flooding_stranger)),
        "many-connections" => Wire::new().connect_and(answer_with(many_connections)),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// Says two things in one call, of which the second is long or not; then one.
fn second_message(wire: &mut Wire, _: &Admission) -> String {
    let line = |length| LogRequest {
        message: "x".repeat(length),
        ..LogRequest::default()
    };
    let calls = [
        vec![line(1), line(1)],
        vec![line(1), line(2 * LONGEST)],
        vec![line(1)],
    ];
    let outcomes = calls.map(|lines| {
        let request = wire.handshake.request(stream::iter(lines));
        outcome(wire.block_on(log_all(wire.channel(), request)))
    });
    outcomes.join("; ")
}

/// Begins as many long calls as there may be and ends none; tells what a further one, which
/// is short, comes to then, and after they were taken back.
fn long_calls(wire: &mut Wire, _: &Admission) -> String {
    let line = longest_line();
    let channel = wire.channel();
    let mut calls = JoinSet::new();
    for _ in 0..LONG_CALLS {
        let endless = stream::iter([line.clone()]).chain(stream::pending());
        let call = log_all(channel.clone(), wire.handshake.request(endless));
        calls.spawn_on(call, wire.runtime.handle());
    }
    let refused = loop {
        if let Err(status) = wire.log("info", "short") {
            break status;
        }
    };
    wire.block_on(calls.shutdown());
    // They are taken back when the host hears of it.
    while wire.log("info", "short").is_err() {}
    format!("{:?} {}; OK", refused.code(), refused.message())
}

/// Has as many connections as there may be; tells what a call on a further one comes to
/// then, and after another one was given up.
fn many_connections(wire: &mut Wire, _: &Admission) -> String {
    let log = |channel: &Channel| {
        let request = wire.handshake.request(LogRequest::default());
        wire.block_on(HostClient::new(channel.clone()).log(request))
    };
    // One is there already.
    let mut channels: Vec<_> = (1..CONNECTIONS).map(|_| wire.channel()).collect();
    for channel in &channels {
        log(channel).expect("so many there may be");
    }
    let further = wire.channel();
    let refused = outcome(log(&further));
    channels.pop();
    // It is gone when the host hears of it.
    while log(&further).is_err() {}
    format!("{refused}; OK")
}

/// Has a stranger call without a pause and listen to nothing, and makes so many others that
/// it has to go; tells when it was sent away.
fn flooding_stranger(wire: &mut Wire, _: &Admission) -> String {
    let connect = || {
        let port = wire.handshake.port;
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens")
    };
    let mut stranger = connect();
    let begun = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, b""),
    ];
    stranger.write_all(&begun.concat()).expect("it is served");
    let flooding = thread::spawn(move || {
        let mut stream = 1;
        while stranger.write_all(&flood(stream)).is_ok() {
            stream += 2 * FLOOD;
        }
    });
    let others: Vec<_> = (0..CONNECTIONS).map(|_| connect()).collect();
    flooding.join().expect("it does not panic");
    drop(others);
    "sent away".to_owned()
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;

/// Returns calls from `stream` on, each taken back at once.
fn flood(stream: u32) -> Vec<u8> {
    /// `:method POST`, `:scheme http`, and a `:path` of 21 bytes.
    const CALL: &[u8] = b"\x83\x86\x04\x15/cipd.plugin.Host/Log";
    const COMPLETE: u8 = 0x5;
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    let streams = (0..FLOOD).map(|number| stream + 2 * number);
    let calls = streams.flat_map(|stream| {
        let call = frame(HEADERS, COMPLETE, stream, CALL);
        [call, frame(RST_STREAM, 0, stream, &CANCEL)]
    });
    calls.collect::<Vec<_>>().concat()
}

/// Returns a frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short one");
    let [_, length @ ..] = length.to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns a line that makes the longest message that there may be.
fn longest_line() -> LogRequest {
    /// What stands before the text: a tag, and a length in four bytes.
    const AROUND: usize = 5;
    LogRequest {
        message: "x".repeat(LONGEST - AROUND),
        ..LogRequest::default()
    }
}

/// Sends all `lines` in one call, which is made to be sent one.
async fn log_all<S>(channel: Channel, lines: Request<S>) -> Result<Response<()>, Status>
where
    S: stream::Stream<Item = LogRequest> + Send + 'static,
{
    let mut client = Grpc::new(channel);
    client.ready().await.expect("connected");
    let path = PathAndQuery::from_static("/cipd.plugin.Host/Log");
    client
        .client_streaming(lines, path, ProstCodec::<LogRequest, ()>::default())
        .await
}
