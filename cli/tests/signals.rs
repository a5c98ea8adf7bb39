//! How `admit check` ends when it gets a signal.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests create files, and panic on errors"
)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use conformance::liveness_pipe::LivenessPipe;
use conformance::modes::native;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

const PIN: &str = "a/b:qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";

/// Time between two polls of a state that has no event.
const PAUSE: Duration = Duration::from_millis(5);

/// `admit check` with a plugin that runs and never connects.
struct Stuck {
    admit: Child,
    plugin: Pid,
    _folder: TempDir,
}

impl Stuck {
    /// Starts a shell script as the plugin, and waits until it runs.
    fn start(script: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let started = folder.path().join("started");
        let made = Command::new("mkfifo").arg(&started).status().unwrap();
        assert!(made.success());
        let admit = Command::new(env!("CARGO_BIN_EXE_admit"))
            .args(["check", PIN, "--offline", "--timeout", "none"])
            .args(["--", "sh", "-c"])
            .arg(format!("echo $$ > started; {script}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            admit,
            plugin: read_pid(&started),
            _folder: folder,
        }
    }

    fn signal(&self, signal: Signal) {
        let admit = Pid::from_child(&self.admit);
        kill_process(admit, signal).unwrap();
    }

    fn exit_status(&mut self) -> Option<i32> {
        self.admit.wait().unwrap().code()
    }

    fn assert_plugin_is_gone(&self) {
        assert!(test_kill_process(self.plugin).is_err());
    }
}

/// Reads a named pipe, which blocks until the plugin writes it.
fn read_pid(pipe: &Path) -> Pid {
    let mut text = String::new();
    File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

/// A plugin that exits at the end of stdin and writes nothing; its stdout stays open.
const POLITE: &str = "exec cat 3>&1 > /dev/null";

/// A plugin that ignores the end of stdin.
const STUBBORN: &str = "while :; do sleep 1000; done";

fn assert_closes_the_plugin(signal: Signal, status: i32) {
    let mut stuck = Stuck::start(POLITE);
    stuck.signal(signal);

    let mut stdout = String::new();
    let mut reader = stuck.admit.stdout.take().unwrap();
    reader.read_to_string(&mut stdout).unwrap();
    assert_eq!(
        stdout,
        format!("{PIN}  failed: the admission plugin is terminating\n")
    );
    assert_eq!(stuck.exit_status(), Some(status));
    stuck.assert_plugin_is_gone();
}

#[test]
fn sigint_closes_the_plugin_and_prints_the_outcomes() {
    assert_closes_the_plugin(Signal::INT, 130);
}

#[test]
fn sigterm_closes_the_plugin_and_has_its_own_exit_status() {
    assert_closes_the_plugin(Signal::TERM, 143);
}

#[test]
fn a_second_sigint_kills_the_plugin() {
    let mut stuck = Stuck::start(STUBBORN);
    stuck.signal(Signal::INT);
    // The outcome is printed when the close begins, before the grace is over.
    let mut line = String::new();
    let mut stdout = BufReader::new(stuck.admit.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains("the admission plugin is terminating"));
    assert!(test_kill_process(stuck.plugin).is_ok());

    stuck.signal(Signal::INT);
    assert_eq!(stuck.exit_status(), Some(130));
    stuck.assert_plugin_is_gone();
}

#[test]
fn a_plugin_that_does_not_connect_causes_a_warning() {
    let mut stuck = Stuck::start(POLITE);
    let mut line = String::new();
    let mut stderr = BufReader::new(stuck.admit.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    assert!(
        line.ends_with(
            "the plugin `sh` has not connected after 3 s: is it an admission plugin? one that is made for cipd needs --wire grpc\n"
        ),
        "{line}"
    );
    stuck.signal(Signal::TERM);
    assert_eq!(stuck.exit_status(), Some(143));
}

#[test]
fn no_process_of_the_plugin_survives_a_killed_admit() {
    let mut liveness = LivenessPipe::new();
    let mut stuck = Stuck::start(&format!(
        "exec 9>{}; setsid sh -c 'sleep 1000 & echo up >&9'; {STUBBORN}",
        liveness.path().display()
    ));
    while liveness.text() != "up\n" {
        thread::sleep(PAUSE);
    }
    stuck.signal(Signal::KILL);
    while liveness.has_writer() {
        thread::sleep(PAUSE);
    }
    assert_eq!(stuck.exit_status(), None);
}

#[test]
fn a_deleted_executable_still_starts_plugins() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("admit");
    // Not `fs::copy`: a process that another test forks meanwhile would hold the copy open for
    // writing, and the kernel would refuse to run it.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_admit"))
        .arg(&file)
        .status();
    assert!(copied.unwrap().success());
    let mut admit = Command::new(&file)
        .args(["check", "--offline", "--pins", "-", "--"])
        .arg(native("conformance-fixture"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    fs::remove_file(&file).unwrap();
    // `admit` starts the plugin after it has read all pins.
    let pin = PIN.replace("a/b", "allow/a");
    let mut pins = admit.stdin.take().unwrap();
    writeln!(pins, "{pin}").unwrap();
    drop(pins);
    let run = admit.wait_with_output().unwrap();
    assert_eq!(
        str::from_utf8(&run.stdout),
        Ok(&*format!("{pin}  admitted\n"))
    );
    assert_eq!(run.status.code(), Some(0));
}
