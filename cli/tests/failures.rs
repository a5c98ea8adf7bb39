//! How `admit check` reports plugins that fail.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test makes its own files, and fails where anything is amiss"
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

/// Fails each check the same way: it says so and ends before it has connected.
const FAILING: [&str; 3] = ["sh", "-c", "echo no policy configured >&2; exit 3"];

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn a_plugin_that_ends_early_is_reported_once_with_its_last_words() {
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
  the last that it wrote to stderr:
    | no policy configured
  hint: the plugin ended before it connected; one that is made for cipd needs --wire grpc, one that needs more of the environment --env NAME, and -vv shows all that it logs
"
    );
}

#[test]
fn an_end_before_connecting_suggests_the_other_wire() {
    let run = admit(&["--quiet", "--wire", "grpc"], &FAILING)
        .output()
        .unwrap();

    assert_eq!(run.status.code(), Some(2));
    let hint = "  hint: the plugin ended before it connected; one that is not made for cipd may need --wire stdio, one that needs more of the environment --env NAME, and -vv shows all that it logs\n";
    assert!(text(&run.stderr).ends_with(hint), "{run:?}");
}

#[test]
fn a_missing_executable_is_named_with_what_to_look_at() {
    let run = admit(&["--quiet"], &["./absent"]).output().unwrap();

    assert_eq!(run.status.code(), Some(2));
    assert_eq!(
        text(&run.stderr),
        "error: the plugin `absent` failed: failed to launch the plugin: fork/exec ./absent: no such file or directory
  caused by: No such file or directory (os error 2)
  kind: launch
  hint: check that COMMAND exists and may be executed; a name without a slash is looked for in PATH
"
    );
}

#[test]
fn json_has_one_object_a_pin_with_every_field() {
    let run = admit(&["--format", "json"], &FAILING).output().unwrap();

    assert_eq!(run.status.code(), Some(2));
    let lines: Vec<Value> = text(&run.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), PINS.len());
    for (mut line, pin) in lines.into_iter().zip(PINS) {
        let took = line["duration_us"].take();
        assert!(took.is_u64(), "{took}");
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
fn the_last_line_on_stderr_sums_up() {
    let run = admit(&[], &FAILING).output().unwrap();

    let last = text(&run.stderr).lines().last().unwrap_or_default();
    let seconds = last
        .strip_prefix("2 pins: 0 admitted, 0 denied, 2 failed in ")
        .and_then(|rest| rest.strip_suffix(" s"));
    assert!(seconds.is_some_and(|s| s.parse::<f32>().is_ok()), "{last}");
}

#[test]
fn colours_come_only_when_asked_for() {
    let plain = admit(&[], &FAILING).output().unwrap();
    assert!(!plain.stdout.contains(&b'\x1b'));
    let coloured = admit(&["--color", "always"], &FAILING).output().unwrap();
    assert!(text(&coloured.stdout).contains("\x1b[33mfailed\x1b[0m: "));
}

#[test]
fn a_stdout_that_nobody_reads_ends_quietly_and_keeps_the_exit_status() {
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
