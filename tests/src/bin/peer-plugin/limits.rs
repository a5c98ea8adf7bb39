//! Plugins that exceed a limit.

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

use crate::calls::{deny_with, outcome};
use crate::wire::Wire;

/// Longest message of a call, in bytes.
const MAX_MESSAGE: usize = 4 << 20;

/// Number of concurrent calls with a message of this length.
const LONG_CALLS: usize = 16;

/// Limit on the connections of one plugin, and on the unauthenticated connections of a host.
const CONNECTIONS: usize = 64;

/// Calls in one write of the busy connection.
const CALLS_PER_WRITE: u32 = 1_000;

/// Runs the mode `argument`. Returns `None` if there is no such mode.
pub(crate) fn run(argument: &str) -> Option<ExitCode> {
    match argument {
        "second-message" => Wire::new().connect_and(deny_with(second_message)),
        "long-calls" => Wire::new().connect_and(deny_with(long_calls)),
        "busy-connection" => Wire::new().connect_and(deny_with(busy_connection)),
        "many-connections" => Wire::new().connect_and(deny_with(many_connections)),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// Makes three calls: with a short second message, with a long one, and without one.
fn second_message(wire: &mut Wire, _: &Admission) -> String {
    let line = |length| LogRequest {
        message: "x".repeat(length),
        ..LogRequest::default()
    };
    let calls = [
        vec![line(1), line(1)],
        vec![line(1), line(2 * MAX_MESSAGE)],
        vec![line(1)],
    ];
    let outcomes = calls.map(|lines| {
        let request = wire.handshake.request(stream::iter(lines));
        outcome(wire.block_on(log_all(wire.channel(), request)))
    });
    outcomes.join("; ")
}

/// Starts as many long calls as the host accepts, and completes none. Reports how a short call
/// ends meanwhile, and how one ends after the long calls are cancelled.
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
    // The host frees their memory when it receives the cancellations.
    while wire.log("info", "short").is_err() {}
    format!("{:?} {}; OK", refused.code(), refused.message())
}

/// Opens as many connections as the host accepts. Reports how a call on a further connection
/// ends, and how one ends after a connection is closed.
fn many_connections(wire: &mut Wire, _: &Admission) -> String {
    let log = |channel: &Channel| {
        let request = wire.handshake.request(LogRequest::default());
        wire.block_on(HostClient::new(channel.clone()).log(request))
    };
    // `wire` has one connection already.
    let mut channels: Vec<_> = (1..CONNECTIONS).map(|_| wire.channel()).collect();
    for channel in &channels {
        log(channel).expect("within the limit");
    }
    let further = wire.channel();
    let refused = outcome(log(&further));
    channels.pop();
    // The host counts the closed connection until it detects the close.
    while log(&further).is_err() {}
    format!("{refused}; OK")
}

/// Sends calls without a pause on an unauthenticated connection, and reads nothing from it.
/// Opens so many others that the host must close it to make room. Reports when that happens.
fn busy_connection(wire: &mut Wire, _: &Admission) -> String {
    let connect = || {
        let port = wire.handshake.port;
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the host listens")
    };
    let mut busy = connect();
    let preface = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, b""),
    ];
    busy.write_all(&preface.concat()).expect("the host reads");
    let writer = thread::spawn(move || {
        let mut stream = 1;
        while busy.write_all(&cancelled_calls(stream)).is_ok() {
            stream += 2 * CALLS_PER_WRITE;
        }
    });
    let others: Vec<_> = (0..CONNECTIONS).map(|_| connect()).collect();
    writer.join().expect("no panic");
    drop(others);
    "closed".to_owned()
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;

/// Returns calls with stream IDs from `stream` on, each cancelled at once.
fn cancelled_calls(stream: u32) -> Vec<u8> {
    /// `:method POST`, `:scheme http`, and a `:path` of 21 bytes.
    const CALL: &[u8] = b"\x83\x86\x04\x15/cipd.plugin.Host/Log";
    const COMPLETE: u8 = 0x5;
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    let streams = (0..CALLS_PER_WRITE).map(|number| stream + 2 * number);
    let calls = streams.flat_map(|stream| {
        let call = frame(HEADERS, COMPLETE, stream, CALL);
        [call, frame(RST_STREAM, 0, stream, &CANCEL)]
    });
    calls.collect::<Vec<_>>().concat()
}

/// Returns an HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let [_, length @ ..] = length.to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns a log line whose message has the maximum length.
fn longest_line() -> LogRequest {
    /// Bytes before the text: a tag, and a length in four bytes.
    const OVERHEAD: usize = 5;
    LogRequest {
        message: "x".repeat(MAX_MESSAGE - OVERHEAD),
        ..LogRequest::default()
    }
}

/// Sends all `lines` in one call of a method that takes a single message.
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
