//! Reports of `admit check` about plugins that fail.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests create files, and panic on errors"
)]

use std::fs::File;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

const PINS: [&str; 2] = [
    "a/b:qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC",
    "a/long/name:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

fn admit(args: &[&str], plugin: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_admit"));
    command
        .args(["check", "--offline"])
        .args(PINS)
        .args(args)
        .arg("--")
        .args(plugin)
        .stdin(Stdio::null());
    command
}

/// A plugin that prints to stderr and exits before it connects.
const FAILING: [&str; 3] = ["sh", "-c", "echo no policy configured >&2; exit 3"];

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn an_early_exit_is_reported_once_with_the_end_of_stderr() {
    let run = admit(&["--quiet"], &FAILING).output().unwrap();

    assert_eq!(run.status.code(), Some(2));
    let failed =
        "failed: the admission plugin terminated before making ListAdmissions RPC: exit status 3";
    let [first, second] = PINS;
    let width = first.len().max(second.len());
    assert_eq!(
        text(&run.stdout),
        format!("{first:width$}  {failed}\n{second:width$}  {failed}\n")
    );
    assert_eq!(
        text(&run.stderr),
        "error: the plugin `sh` failed: the admission plugin terminated before making ListAdmissions RPC: exit status 3
  kind: crash
  exit: exit status 3
  end of its stderr:
    | no policy configured
  hint: the plugin exited before it connected; a plugin made for cipd needs --wire grpc, one that needs a variable of the environment needs --env NAME; -vv shows everything that it logs
"
    );
}

#[test]
fn an_early_exit_suggests_the_other_wire() {
    let run = admit(&["--quiet", "--wire", "grpc"], &FAILING)
        .output()
        .unwrap();

    assert_eq!(run.status.code(), Some(2));
    let hint = "  hint: the plugin exited before it connected; a plugin that is not made for cipd needs --wire stdio, one that needs a variable of the environment needs --env NAME; -vv shows everything that it logs\n";
    assert!(text(&run.stderr).ends_with(hint), "{run:?}");
}

#[test]
fn a_missing_executable_is_named_with_a_hint() {
    let run = admit(&["--quiet"], &["./absent"]).output().unwrap();

    assert_eq!(run.status.code(), Some(2));
    assert_eq!(
        text(&run.stderr),
        "error: the plugin `absent` failed: failed to launch the plugin: fork/exec ./absent: no such file or directory
  caused by: No such file or directory (os error 2)
  kind: launch
  hint: check that COMMAND exists and is executable; a name without a slash is looked up in PATH
"
    );
}

#[test]
fn json_has_one_object_per_pin_with_every_field() {
    let run = admit(&["--format", "json"], &FAILING).output().unwrap();

    assert_eq!(run.status.code(), Some(2));
    let lines: Vec<Value> = text(&run.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), PINS.len());
    for (mut line, pin) in lines.into_iter().zip(PINS) {
        let duration = line["duration_us"].take();
        assert!(duration.is_u64(), "{duration}");
        let (package, instance_id) = pin.split_once(':').unwrap();
        assert_eq!(
            line,
            json!({
                "package": package,
                "instance_id": instance_id,
                "outcome": "failed",
                "kind": "crash",
                "code": null,
                "message": "the admission plugin terminated before making ListAdmissions RPC: exit status 3",
                "duration_us": null,
            })
        );
    }
}

#[test]
fn the_last_line_on_stderr_is_the_summary() {
    let run = admit(&[], &FAILING).output().unwrap();

    let last = text(&run.stderr).lines().last().unwrap_or_default();
    let seconds = last
        .strip_prefix("2 pins: 0 admitted, 0 denied, 2 failed in ")
        .and_then(|rest| rest.strip_suffix(" s"));
    assert!(seconds.is_some_and(|s| s.parse::<f32>().is_ok()), "{last}");
}

#[test]
fn output_that_is_not_a_terminal_has_colours_only_on_request() {
    let plain = admit(&[], &FAILING).output().unwrap();
    assert!(!plain.stdout.contains(&b'\x1b'));
    let coloured = admit(&["--color", "always"], &FAILING).output().unwrap();
    assert!(text(&coloured.stdout).contains("\x1b[33mfailed\x1b[0m: "));
}

#[test]
fn a_stdout_without_a_reader_does_not_change_the_exit_status() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let unread = admit(&["--quiet"], &FAILING)
        .stdout(writer)
        .output()
        .unwrap();
    let read = admit(&["--quiet"], &FAILING).output().unwrap();

    assert_eq!(unread.status.code(), Some(2));
    assert_eq!(text(&unread.stderr), text(&read.stderr));
}

#[test]
fn a_stdout_that_cannot_be_written_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let run = admit(&[], &FAILING).stdout(full).output().unwrap();

    assert_eq!(run.status.code(), Some(2));
    assert!(
        text(&run.stderr).ends_with(
            "error: cannot write to stdout\n  caused by: No space left on device (os error 28)\n"
        ),
        "{run:?}"
    );
}
