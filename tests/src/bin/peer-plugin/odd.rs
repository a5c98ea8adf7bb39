//! What only this wire allows, and what nobody should do on it.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::ExitCode;

use admission_grpc::admissions_client::AdmissionsClient;
use admission_grpc::host_client::HostClient;
use admission_proto::wire::plugin::{Admission, LogRequest, ResolveAdmissionRequest};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use rustix::process::{Signal, getpid, kill_process};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Response, Status};

use crate::wire::{Wire, drain, listing, with_tickets};

/// Calls that are made at once, where many are.
const MANY: usize = 10_000;

/// Connections that are made and not used.
const STRANGERS: usize = 200;

/// Returns `None` if there is no such mode.
pub(crate) fn run(argument: &str) -> Option<ExitCode> {
    match argument {
        "tickets" => Wire::new().connect_and(answer_with(tickets)),
        "tell" => Wire::new().connect_and(answer_with(tell)),
        "connect-twice" => Wire::new().connect_and(answer_with(connect_twice)),
        "unknown-methods" => Wire::new().connect_and(answer_with(unknown_methods)),
        "oversized" => Wire::new().connect_and(answer_with(oversized)),
        "no-stream" => no_stream(),
        "ends" => ends(),
        "cancel-stream" => cancel_stream(),
        "freeze" => freeze(),
        "stdout" => {
            print!("a line of stdout\r\nand another, \x1b[31mred\nwithout an end");
            let _flushed = io::stdout().flush();
            Wire::new().connect_and(|wire, admission| wire.admit(&admission));
        }
        "many-logs" => many_logs(),
        "many-verdicts" => many_verdicts(),
        "many-calls" => many_calls(),
        "take-back" => take_back(),
        "strangers" => strangers(),
        "quick-exit" => quick_exit(),
        "reconnect" => reconnect(),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// Denies each admission with what `ask` has found out.
pub(crate) fn answer_with(
    ask: fn(&mut Wire, &Admission) -> String,
) -> impl FnMut(&mut Wire, Admission) {
    move |wire, admission| {
        let found = ask(wire, &admission);
        wire.deny(&admission.admission_id, &found);
    }
}

/// Spells what a call has ended with.
pub(crate) fn outcome<T>(result: Result<Response<T>, Status>) -> String {
    match result {
        Ok(_) => "OK".to_owned(),
        Err(status) => format!("{:?} {}", status.code(), status.message()),
    }
}

/// Gives away what the handshake said.
fn tell(wire: &mut Wire, admission: &Admission) -> String {
    if admission.package == "exit" {
        std::process::exit(9);
    }
    format!("{} {}", wire.handshake.port, wire.handshake.ticket)
}

/// Calls with no ticket, a wrong one, and several.
fn tickets(wire: &mut Wire, _: &Admission) -> String {
    let right = wire.handshake.ticket.clone();
    let short = &right[..85];
    let cases: [&[&str]; 6] = [
        &[],
        &["wrong"],
        &[short],
        &["wrong", &right],
        &[&right, "wrong"],
        &[&right],
    ];
    let outcomes = cases.map(|tickets| {
        let log = wire
            .host
            .log(with_tickets(LogRequest::default(), tickets))
            .boxed();
        let resolve = ResolveAdmissionRequest::default();
        let resolve = wire
            .admissions
            .resolve_admission(with_tickets(resolve, tickets));
        let (log, resolve) = wire.runtime.block_on(async { (log.await, resolve.await) });
        let (log, resolve) = (outcome(log), outcome(resolve));
        assert_eq!(log, resolve, "one gate for both services");
        log
    });
    outcomes.join("; ")
}

fn connect_twice(wire: &mut Wire, _: &Admission) -> String {
    let second = wire
        .list_admissions(1)
        .expect_err("there is a stream already");
    format!("{:?} {}", second.code(), second.message())
}

/// Calls what is not there, without a ticket.
fn unknown_methods(wire: &mut Wire, _: &Admission) -> String {
    let paths = [
        "/cipd.plugin.Host/Shutdown",
        "/cipd.plugin.Admissions/",
        "/grpc.health.v1.Health/Check",
    ];
    let outcomes = paths.map(|path| {
        let channel = wire.channel();
        let mut client = tonic::client::Grpc::new(channel);
        wire.block_on(async {
            client.ready().await.expect("connected");
            let codec = tonic_prost::ProstCodec::<LogRequest, ()>::default();
            let path = PathAndQuery::from_static(path);
            let request = Request::new(LogRequest::default());
            outcome(client.unary(request, path, codec).await)
        })
    });
    outcomes.join("; ")
}

/// Logs more than a message may hold, and less.
fn oversized(wire: &mut Wire, _: &Admission) -> String {
    [5 << 20, 3 << 20]
        .map(|length| match wire.log("info", &"x".repeat(length)) {
            Ok(()) => "OK".to_owned(),
            Err(status) => format!("{:?}", status.code()),
        })
        .join("; ")
}

/// Decides, logs and lists without ever asking for admissions.
fn no_stream() {
    let mut wire = Wire::new();
    wire.resolve("nobody asked this", None);
    wire.log("warning", "said without a stream")
        .expect("it is logged");
    let listed = wire.list_metadata(listing(&Admission::default()));
    eprintln!(
        "metadata: {:?}",
        listed.expect_err("it makes no sense").code()
    );
    drain();
}

/// Tells how the stream ended.
fn ends() {
    let mut wire = Wire::new();
    wire.connect();
    let end = loop {
        if let Err(end) = wire.next() {
            break end;
        }
    };
    eprintln!("the stream ended with {:?} {}", end.code(), end.message());
    drain();
    eprintln!("stdin ended");
}

/// Gives the stream up at the first admission and lives on.
fn cancel_stream() {
    let mut wire = Wire::new();
    wire.connect();
    let _admission = wire.next();
    wire.cancel_stream();
    drain();
    eprintln!("stdin ended");
}

/// Stops itself at the first admission.
fn freeze() {
    Wire::new().connect_and(|_, _| {
        kill_process(getpid(), Signal::STOP).expect("a process may stop itself");
    });
}

/// Logs many lines at once before the verdict.
fn many_logs() {
    Wire::new().connect_and(|wire, admission| {
        let calls = (0..MANY).map(|number| {
            let request = wire.handshake.request(LogRequest {
                severity: "info".into(),
                message: format!("line {number}"),
            });
            let mut host = wire.host.clone();
            async move { host.log(request).await }
        });
        for outcome in wire.block_on(join_all(calls)) {
            outcome.expect("every line is taken");
        }
        wire.admit(&admission);
    });
}

/// Sends many verdicts on what nobody asked, then the one.
fn many_verdicts() {
    Wire::new().connect_and(|wire, admission| {
        let calls = (0..MANY).map(|number| {
            let request = wire.handshake.request(ResolveAdmissionRequest {
                admission_id: format!("nobody asked {number}"),
                status: None,
            });
            let mut admissions = wire.admissions.clone();
            async move { admissions.resolve_admission(request).await }
        });
        for outcome in wire.block_on(join_all(calls)) {
            outcome.expect("every verdict is taken");
        }
        wire.admit(&admission);
    });
}

/// Calls for metadata many times at once, and denies with the number of pages that came.
fn many_calls() {
    Wire::new().connect_and(|wire, admission| {
        let calls = (0..MANY).map(|_| {
            let request = wire.handshake.request(listing(&admission));
            let mut host = wire.host.clone();
            async move { host.list_metadata(request).await }
        });
        let outcomes = wire.block_on(join_all(calls));
        let pages = outcomes.iter().filter(|page| page.is_ok()).count();
        wire.deny(&admission.admission_id, &pages.to_string());
    });
}

/// Calls for metadata, takes it back when told to by a second admission, and admits both.
fn take_back() {
    let mut wire = Wire::new();
    wire.connect();
    let first = wire.next().expect("an admission");
    let request = wire.handshake.request(listing(&first));
    let mut host = wire.host.clone();
    let call = wire
        .runtime
        .spawn(async move { host.list_metadata(request).await });
    let second = wire.next().expect("another admission");
    call.abort();
    wire.admit(&first);
    wire.admit(&second);
    while wire.next().is_ok() {}
}

/// Connects many times beside the one connection that counts: to say nothing, nonsense,
/// or half of what is to be said first. Admits when the host has ended them all.
fn strangers() {
    Wire::new().connect_and(|wire, admission| {
        let port = wire.handshake.port;
        let says: [&[u8]; 4] = [
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            &[0; 4096],
            b"PRI * HTTP/2.0\r\n",
        ];
        let strangers: Vec<_> = (0..STRANGERS)
            .map(|number| {
                let mut stream =
                    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
                // It may be ended already, by the many after it or for what was said.
                let _ended = stream.write_all(says[number % says.len()]);
                stream
            })
            .collect();
        for mut stream in strangers {
            // Whatever it says, an end or a reset comes.
            let _reset = stream.read_to_end(&mut Vec::new());
        }
        wire.admit(&admission);
    });
}

/// Decides, and is gone in the next moment.
fn quick_exit() {
    Wire::new().connect_and(|wire, admission| {
        wire.admit(&admission);
        std::process::exit(9);
    });
}

/// Judges over a connection of its own for each admission.
fn reconnect() {
    let mut wire = Wire::new();
    wire.connect();
    while let Ok(admission) = wire.next() {
        let channel = wire.channel();
        wire.host = HostClient::new(channel.clone());
        wire.admissions = AdmissionsClient::new(channel);
        wire.admit(&admission);
    }
}
