//! What the raw fixture does in frames, in calls: for the tests that run on both wires.

mod metadata;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use admission_proto::wire::plugin::Admission;
use admission_proto::wire::rpc;
use rustix::process::{Signal, getpid, kill_process};
use tonic::Status;

use crate::wire::{Handshake, Wire, drain, listing};

/// Metadata calls for one admission.
const FLOOD: usize = 50;

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
        "stubborn" | "deaf" => {
            Wire::new().connect();
            sleep_for_ever();
        }
        "stubborn-silent" => {
            eprintln!("the fixture has started");
            sleep_for_ever();
        }
        "stubborn-greeted" => {
            Handshake::read();
            eprintln!("the fixture has read hello");
            sleep_for_ever();
        }
        "version-0" => refused(0),
        "version-99" => refused(99),
        "stubborn-broken" => {
            let mut wire = Wire::new();
            wire.connect();
            wire.cancel_stream();
            sleep_for_ever();
        }
        "log-first" => {
            let mut wire = Wire::new();
            let logged = wire.log("info", "said before list_admissions");
            logged.expect("the host logs it");
            wire.connect_and(|wire, admission| wire.admit(&admission));
        }
        "farewell" => {
            let mut wire = Wire::new();
            wire.connect_and(|wire, admission| wire.admit(&admission));
            drain();
            let logged = wire.log("info", "said after the end of stdin");
            logged.expect("the host logs it");
        }
        "die-at-once" => kill(),
        "die" => Wire::new().connect_and(|_, _| kill()),
        "die-at-5000" => die_at_5000(),
        "crash-on-second" => crash_on_second(),
        "mute" => Wire::new().connect_and(|_, _| {}),
        "late" => late(),
        "twice" => Wire::new().connect_and(|wire, admission| {
            wire.deny(&admission.admission_id, "denied first");
            wire.admit(&admission);
        }),
        "stray" => Wire::new().connect_and(|wire, admission| {
            wire.deny("nobody asked this", "denied first");
            wire.admit(&admission);
        }),
        "rude" => rude(),
        "replay" => replay(),
        "numbered" => numbered(),
        "backwards" => backwards(),
        "flood" => Wire::new().connect_and(|wire, admission| {
            for _ in 0..FLOOD {
                // It is judged all the same.
                let _page = wire.list_metadata(listing(&admission));
            }
            wire.admit(&admission);
        }),
        "with-grandchild" => with_grandchild(),
        "foreign-service" => ask_wrongly(|admission| {
            admission.service_url = "https://other.example.com".into();
        }),
        "no-instance" => ask_wrongly(|admission| admission.instance = None),
        _ => return metadata::run(argument),
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

/// Answers 5,000 admissions and is gone in the next moment.
fn die_at_5000() {
    let mut answered = 0;
    Wire::new().connect_and(|wire, admission| {
        wire.admit(&admission);
        answered += 1;
        if answered == 5_000 {
            kill();
        }
    });
}

/// Answers the first admission and exits on the second.
fn crash_on_second() {
    let mut first = true;
    Wire::new().connect_and(|wire, admission| {
        if !std::mem::take(&mut first) {
            std::process::exit(7);
        }
        wire.admit(&admission);
    });
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

/// Admits everything, but before each admission but the first it denies the first again.
fn replay() {
    let mut first: Option<String> = None;
    Wire::new().connect_and(|wire, admission| {
        match &first {
            Some(first) => wire.deny(first, "denied first"),
            None => first = Some(admission.admission_id.clone()),
        }
        wire.admit(&admission);
    });
}

/// Denies each admission with its place among all that came.
fn numbered() {
    let mut came = 0;
    Wire::new().connect_and(|wire, admission| {
        wire.deny(&admission.admission_id, &came.to_string());
        came += 1;
    });
}

/// Answers when 1,000 admissions are there, the last one first.
fn backwards() {
    let mut waiting = Vec::new();
    Wire::new().connect_and(|wire, admission| {
        waiting.push(admission);
        if waiting.len() == 1_000 {
            for admission in waiting.drain(..).rev() {
                wire.admit(&admission);
            }
        }
    });
}

/// Has a child that holds its pipes; answers with its own number when asked for it,
/// and nothing else.
fn with_grandchild() {
    let sleeper = std::process::Command::new("sleep").arg("1000").spawn();
    drop(sleeper.expect("there is a `sleep`"));
    Wire::new().connect_and(|wire, admission| {
        if admission.package == "pid" {
            wire.deny(&admission.admission_id, &std::process::id().to_string());
        }
    });
}

/// Asks for metadata in a way that makes no sense, and answers with what that says.
fn ask_wrongly(spoil: impl Fn(&mut Admission)) {
    Wire::new().connect_and(|wire, mut admission| {
        spoil(&mut admission);
        let listed = wire.list_metadata(listing(&admission));
        let status = listed.expect_err("the host refuses it");
        wire.resolve(&admission.admission_id, Some(as_verdict(&status)));
    });
}

pub(crate) fn as_verdict(status: &Status) -> rpc::Status {
    rpc::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        ..rpc::Status::default()
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
