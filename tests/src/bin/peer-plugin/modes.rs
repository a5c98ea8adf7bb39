//! Plugins that keep to the wire, and end or dawdle.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use admission_proto::wire::plugin::Admission;
use rustix::process::{Signal, getpid, kill_process};

use crate::wire::{Handshake, Wire, drain};

/// Returns `None` if there is no such mode.
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
            eprintln!("the fixture has read hello");
            drain();
            eprintln!("the fixture was asked to finish");
        }
        "stubborn" => {
            Wire::new().connect();
            sleep_for_ever();
        }
        "version-99" => refused(99),
        "farewell" => {
            let mut wire = Wire::new();
            wire.connect_and(|wire, admission| wire.admit(&admission));
            drain();
            let logged = wire.log("info", "said after the end of stdin");
            logged.expect("the host logs it");
        }
        "die-at-once" => kill(),
        "die" => Wire::new().connect_and(|_, _| kill()),
        "late" => late(),
        "rude" => rude(),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// Connects with a version that the host does not speak.
fn refused(version: i32) {
    let mut wire = Wire::new();
    let status = wire.list_admissions(version).and_then(|()| wire.next());
    let status = status.expect_err("the host refuses it");
    eprintln!(
        "the stream ended with {:?} {}",
        status.code(),
        status.message()
    );
    drain();
}

/// Answers each admission when the next one comes.
fn late() {
    let mut before: Option<Admission> = None;
    Wire::new().connect_and(|wire, admission| {
        if let Some(before) = before.replace(admission) {
            wire.admit(&before);
        }
    });
}

/// Decides nothing until it is asked to finish, then everything.
fn rude() {
    let mut waiting = Vec::new();
    let mut wire = Wire::new();
    wire.connect_and(|_, admission| waiting.push(admission));
    for admission in waiting {
        wire.admit(&admission);
    }
}

fn kill() -> ! {
    kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
    unreachable!("the signal cannot be caught")
}

pub(crate) fn sleep_for_ever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
