//! Plugins that follow the protocol, and exit, hang or send late verdicts.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use admission_proto::wire::plugin::Admission;
use rustix::process::{Signal, getpid, kill_process};

use crate::wire::{Handshake, Wire, drain};

/// Runs the mode `argument`. Returns `None` if there is no such mode.
pub(crate) fn run(argument: &str) -> Option<ExitCode> {
    match argument {
        "exit-0" => {}
        "exit-3" => {
            eprintln!("no configuration");
            return Some(ExitCode::from(3));
        }
        "exit-while-connecting" => {
            Handshake::read();
            return Some(ExitCode::from(4));
        }
        "silent" => {
            Handshake::read();
            eprintln!("the peer has read the handshake");
            drain();
            eprintln!("the peer was asked to finish");
        }
        "stubborn" => {
            Wire::new().connect();
            sleep_forever();
        }
        "version-99" => connect_with_version(99),
        "log-after-stdin" => {
            let mut wire = Wire::new();
            wire.connect_and(|wire, admission| wire.admit(&admission));
            drain();
            let logged = wire.log("info", "logged after the end of stdin");
            logged.expect("the host logs it");
        }
        "sigkill-at-once" => kill(),
        "sigkill" => Wire::new().connect_and(|_, _| kill()),
        "late-verdicts" => late_verdicts(),
        "verdicts-after-stream" => verdicts_after_stream(),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// Connects with a protocol version that the host does not know.
fn connect_with_version(version: i32) {
    let mut wire = Wire::new();
    let status = wire.list_admissions(version).and_then(|()| wire.next());
    let status = status.expect_err("the host rejects it");
    eprintln!(
        "the stream ended with {:?} {}",
        status.code(),
        status.message()
    );
    drain();
}

/// Admits each check when the next one arrives.
fn late_verdicts() {
    let mut previous: Option<Admission> = None;
    Wire::new().connect_and(|wire, admission| {
        if let Some(previous) = previous.replace(admission) {
            wire.admit(&previous);
        }
    });
}

/// Sends all verdicts after the stream has ended.
fn verdicts_after_stream() {
    let mut waiting = Vec::new();
    let mut wire = Wire::new();
    wire.connect_and(|_, admission| waiting.push(admission));
    for admission in waiting {
        wire.admit(&admission);
    }
}

fn kill() -> ! {
    kill_process(getpid(), Signal::KILL).expect("a process may signal itself");
    unreachable!("the signal cannot be caught")
}

pub(crate) fn sleep_forever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
