//! Plugins that make unusual calls.

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

use crate::wire::{Wire, drain, list_request, with_tickets};

/// Number of concurrent calls in the modes that make many calls.
const MANY: usize = 10_000;

/// Unauthenticated connections that the mode `unauthenticated` opens.
const UNAUTHENTICATED: usize = 200;

/// Runs the mode `argument`. Returns `None` if there is no such mode.
pub(crate) fn run(argument: &str) -> Option<ExitCode> {
    match argument {
        "tickets" => Wire::new().connect_and(deny_with(tickets)),
        "report-handshake" => Wire::new().connect_and(deny_with(report_handshake)),
        "connect-twice" => Wire::new().connect_and(deny_with(connect_twice)),
        "unknown-methods" => Wire::new().connect_and(deny_with(unknown_methods)),
        "oversized" => Wire::new().connect_and(deny_with(oversized)),
        "no-stream" => no_stream(),
        "report-end" => report_end(),
        "cancel-stream" => cancel_stream(),
        "stop" => stop(),
        "stdout" => {
            print!("a line of stdout\r\nand another, \x1b[31mred\nwithout an end");
            let _flushed = io::stdout().flush();
            Wire::new().connect_and(|wire, admission| wire.admit(&admission));
        }
        "many-logs" => many_logs(),
        "many-verdicts" => many_verdicts(),
        "many-calls" => many_calls(),
        "cancel-call" => cancel_call(),
        "unauthenticated" => unauthenticated(),
        "quick-exit" => quick_exit(),
        "reconnect" => reconnect(),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// Denies each admission with the report of `probe`.
pub(crate) fn deny_with(
    probe: fn(&mut Wire, &Admission) -> String,
) -> impl FnMut(&mut Wire, Admission) {
    move |wire, admission| {
        let report = probe(wire, &admission);
        wire.deny(&admission.admission_id, &report);
    }
}

/// Describes how a call ended.
pub(crate) fn outcome<T>(result: Result<Response<T>, Status>) -> String {
    match result {
        Ok(_) => "OK".to_owned(),
        Err(status) => format!("{:?} {}", status.code(), status.message()),
    }
}

/// Reports the port and the ticket of the handshake.
fn report_handshake(wire: &mut Wire, admission: &Admission) -> String {
    if admission.package == "exit" {
        std::process::exit(9);
    }
    format!("{} {}", wire.handshake.port, wire.handshake.ticket)
}

/// Calls both services with no ticket, a wrong one, and several.
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
        assert_eq!(log, resolve, "both services check tickets alike");
        log
    });
    outcomes.join("; ")
}

fn connect_twice(wire: &mut Wire, _: &Admission) -> String {
    let second = wire.list_admissions(1).expect_err("a stream is open");
    format!("{:?} {}", second.code(), second.message())
}

/// Calls unknown methods without a ticket.
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

/// Logs a line that is too long for a message, and one that is not.
fn oversized(wire: &mut Wire, _: &Admission) -> String {
    [5 << 20, 3 << 20]
        .map(|length| match wire.log("info", &"x".repeat(length)) {
            Ok(()) => "OK".to_owned(),
            Err(status) => format!("{:?}", status.code()),
        })
        .join("; ")
}

/// Sends a verdict, logs and lists metadata without a call of ListAdmissions.
fn no_stream() {
    let mut wire = Wire::new();
    wire.resolve("an unknown check", None);
    wire.log("warning", "logged without a stream")
        .expect("the host logs it");
    let listed = wire.list_metadata(list_request(&Admission::default()));
    eprintln!(
        "metadata: {:?}",
        listed.expect_err("an invalid request").code()
    );
    drain();
}

/// Writes to stderr how the stream ended.
fn report_end() {
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

/// Cancels the stream at the first admission and keeps running.
fn cancel_stream() {
    let mut wire = Wire::new();
    wire.connect();
    let _admission = wire.next();
    wire.cancel_stream();
    drain();
    eprintln!("stdin ended");
}

/// Stops itself with SIGSTOP at the first admission.
fn stop() {
    Wire::new().connect_and(|_, _| {
        kill_process(getpid(), Signal::STOP).expect("a process may stop itself");
    });
}

/// Logs many lines concurrently before the verdict.
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
            outcome.expect("the host logs it");
        }
        wire.admit(&admission);
    });
}

/// Sends many verdicts on unknown checks concurrently, and then the verdict on the admission.
fn many_verdicts() {
    Wire::new().connect_and(|wire, admission| {
        let calls = (0..MANY).map(|number| {
            let request = wire.handshake.request(ResolveAdmissionRequest {
                admission_id: format!("an unknown check {number}"),
                status: None,
            });
            let mut admissions = wire.admissions.clone();
            async move { admissions.resolve_admission(request).await }
        });
        for outcome in wire.block_on(join_all(calls)) {
            outcome.expect("the host accepts it");
        }
        wire.admit(&admission);
    });
}

/// Makes many concurrent metadata calls, and denies with the number of pages received.
fn many_calls() {
    Wire::new().connect_and(|wire, admission| {
        let calls = (0..MANY).map(|_| {
            let request = wire.handshake.request(list_request(&admission));
            let mut host = wire.host.clone();
            async move { host.list_metadata(request).await }
        });
        let outcomes = wire.block_on(join_all(calls));
        let pages = outcomes.iter().filter(|page| page.is_ok()).count();
        wire.deny(&admission.admission_id, &pages.to_string());
    });
}

/// Makes a metadata call, cancels it at the second admission, and admits both.
fn cancel_call() {
    let mut wire = Wire::new();
    wire.connect();
    let first = wire.next().expect("an admission");
    let request = wire.handshake.request(list_request(&first));
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

/// Opens many unauthenticated connections, and sends nothing, garbage, or half a preface on
/// each. Admits when the host has closed them all.
fn unauthenticated() {
    Wire::new().connect_and(|wire, admission| {
        let port = wire.handshake.port;
        let inputs: [&[u8]; 4] = [
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            &[0; 4096],
            b"PRI * HTTP/2.0\r\n",
        ];
        let connections: Vec<_> = (0..UNAUTHENTICATED)
            .map(|number| {
                let mut stream =
                    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the host listens");
                // The host may have closed it already.
                let _closed = stream.write_all(inputs[number % inputs.len()]);
                stream
            })
            .collect();
        for mut stream in connections {
            // Ends with an end of file or a reset.
            let _reset = stream.read_to_end(&mut Vec::new());
        }
        wire.admit(&admission);
    });
}

/// Exits right after its verdict.
fn quick_exit() {
    Wire::new().connect_and(|wire, admission| {
        wire.admit(&admission);
        std::process::exit(9);
    });
}

/// Sends each verdict on a new connection.
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
