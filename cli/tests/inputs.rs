//! Inputs that `admit check` refuses before it starts the plugin.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests create files, and panic on errors"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const PIN: &str = "a/b:qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";

/// Runs `admit check` in `folder`, requires that it does not start the plugin, and returns
/// the text on stderr.
fn refusal(folder: &TempDir, args: &[&str]) -> String {
    let mut args = args.to_vec();
    if !args.contains(&"--metadata") {
        args.push("--offline");
    }
    let run = admit(folder.path(), &args, &["--", "sh", "-c", "touch started"]);
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    assert!(!folder.path().join("started").exists(), "{run:?}");
    assert!(run.stdout.is_empty(), "{run:?}");
    String::from_utf8(run.stderr).unwrap()
}

fn admit(folder: &Path, args: &[&str], plugin: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_admit"))
        .arg("check")
        .args(args)
        .args(plugin)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn no_pin_is_an_error_with_a_hint() {
    let folder = folder(&[("pins", "# none\n\n")]);
    let text = "error: no pin to check\n  hint: name pins as package:instance_id, \
                or pass --ensure-file FILE, --resolved-versions FILE or --pins FILE\n";
    assert_eq!(refusal(&folder, &[]), text);
    assert_eq!(refusal(&folder, &["--pins", "pins"]), text);
    assert_eq!(refusal(&folder, &["--pins", "-"]), text);
}

#[test]
fn a_malformed_pin_is_named() {
    let stderr = refusal(&folder(&[]), &[PIN, "a/b"]);
    assert_eq!(
        stderr.lines().next(),
        Some(
            "error: invalid value 'a/b' for '[PIN]...': not a pin \"a/b\": must be package:instance_id"
        )
    );
}

#[test]
fn a_broken_line_is_named_by_its_file_and_number() {
    let folder = folder(&[
        ("pins", "a:1\n"),
        ("versions", "a/b\nlatest\n\n"),
        ("good", PIN),
        ("meta.json", "{\n\"instances\": 3}"),
    ]);
    assert_eq!(
        refusal(&folder, &["--pins", "pins"]),
        "error: pins:1: not a valid package instance ID \"1\": not a valid size for an encoded digest\n"
    );
    assert_eq!(
        refusal(&folder, &["--resolved-versions", "versions"]),
        "error: versions:3: expected an instance ID, found a blank line\n"
    );
    assert_eq!(
        refusal(&folder, &["--pins", "good", "--metadata", "meta.json"]),
        "error: meta.json:2:14: not a metadata file\n  caused by: invalid type: integer `3`, \
         expected a sequence\n"
    );
}

#[test]
fn a_missing_file_is_named() {
    let folder = folder(&[]);
    let os = "No such file or directory (os error 2)";
    for option in ["--pins", "--resolved-versions"] {
        assert_eq!(
            refusal(&folder, &[option, "absent"]),
            format!("error: cannot read absent\n  caused by: {os}\n")
        );
    }
    assert_eq!(
        refusal(&folder, &[PIN, "--metadata", "absent"]),
        format!("error: cannot read the metadata file `absent`\n  caused by: {os}\n")
    );
    assert_eq!(
        refusal(&folder, &[PIN, "--pins", "."]),
        "error: cannot read .\n  caused by: Is a directory (os error 21)\n"
    );
}

#[test]
fn a_component_that_cannot_be_read_is_refused() {
    let folder = folder(&[]);
    let run = |file| admit(folder.path(), &[PIN, "--offline"], &["--component", file]);
    let absent = run("absent.wasm");
    assert_eq!(absent.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(absent.stderr).unwrap(),
        "error: cannot read the component `absent.wasm`\n  caused by: No such file or directory (os error 2)\n"
    );
    let directory = run(".");
    assert_eq!(directory.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(directory.stderr).unwrap(),
        "error: cannot read the component `.`\n  caused by: is a directory\n"
    );
}

#[test]
fn a_wrong_command_line_is_explained() {
    let folder = folder(&[]);
    let first_line = |args: &[&str], plugin: &[&str]| {
        let run = admit(folder.path(), args, plugin);
        assert_eq!(run.status.code(), Some(2), "{run:?}");
        let stderr = String::from_utf8(run.stderr).unwrap();
        stderr.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(
        first_line(&[PIN], &[]),
        "error: no plugin: pass a COMMAND after `--`, --component FILE or --from-cipd-config"
    );
    assert_eq!(
        first_line(&[PIN, "--timeout", "soon"], &["--", "true"]),
        "error: invalid value 'soon' for '--timeout <DURATION>': expected number at 0"
    );
    assert_eq!(
        first_line(&[PIN, "--timeout", "0"], &["--", "true"]),
        "error: invalid value '0' for '--timeout <DURATION>': must be more than 0; `none` disables the timeout"
    );
    assert_eq!(
        first_line(&[PIN, "--memory-limit", "0"], &["--component", "x"]),
        "error: invalid value '0' for '--memory-limit <SIZE>': must be from 64KiB to 4GiB"
    );
    assert_eq!(
        first_line(&[PIN, "--verbose", "--quiet"], &["--", "true"]),
        "error: the argument '--verbose...' cannot be used with '--quiet'"
    );
}
