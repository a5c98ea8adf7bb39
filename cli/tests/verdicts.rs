//! Output and exit status of `admit check`, for native plugins and components.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests create files, and panic on errors"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use conformance::modes::{component, component_cache, native};
use serde_json::Value;

const INSTANCE: &str = "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";

/// The kind of plugin on the command line.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Native,
    Component,
}

/// Runs `admit check` with a plugin of the conformance tests.
fn check(mode: Mode, plugin: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_admit"));
    command.arg("check").args(arguments);
    match mode {
        Mode::Native => command.arg("--").arg(native(plugin)),
        Mode::Component => command
            .arg("--cache-dir")
            .arg(component_cache())
            .arg("--component")
            .arg(component(plugin)),
    };
    command.output().unwrap()
}

fn check_fixture(mode: Mode, packages: &[&str], options: &[&str]) -> Output {
    let pins: Vec<_> = packages
        .iter()
        .map(|package| format!("{package}:{INSTANCE}"))
        .collect();
    let mut arguments: Vec<_> = pins.iter().map(String::as_str).collect();
    arguments.push("--offline");
    arguments.extend(options);
    check(mode, "conformance-fixture", &arguments)
}

fn stdout(run: &Output) -> &str {
    str::from_utf8(&run.stdout).unwrap()
}

/// Returns the JSON objects that a run has printed, without the durations.
fn objects(run: &Output) -> Vec<Value> {
    let object = |line: &str| {
        let mut object: Value = serde_json::from_str(line).unwrap();
        let duration = object.as_object_mut().unwrap().remove("duration_us");
        assert!(duration.is_some_and(|duration| duration.is_u64()));
        object
    };
    stdout(run).lines().map(object).collect()
}

#[test]
fn the_exit_status_is_that_of_the_worst_outcome() {
    for mode in [Mode::Native, Mode::Component] {
        for (packages, status) in [
            (&["allow/a", "allow/b"][..], 0),
            (&["allow/a", "deny/b"], 1),
            (&["deny/a", "code/2"], 2),
        ] {
            let run = check_fixture(mode, packages, &[]);
            assert_eq!(
                run.status.code(),
                Some(status),
                "{mode:?} {packages:?}: {run:?}"
            );
        }
    }
}

#[test]
fn lines_are_in_the_order_of_the_pins() {
    for mode in [Mode::Native, Mode::Component] {
        let run = check_fixture(mode, &["deny/b", "allow/a", "code/2", "deny/b"], &[]);
        assert_eq!(
            stdout(&run),
            format!(
                "deny/b:{INSTANCE}   denied: deny/b is denied\n\
                 allow/a:{INSTANCE}  admitted\n\
                 code/2:{INSTANCE}   failed: as asked\n\
                 deny/b:{INSTANCE}   denied: deny/b is denied\n"
            ),
            "{mode:?}"
        );
    }
}

#[test]
fn json_has_every_field_for_every_outcome() {
    for mode in [Mode::Native, Mode::Component] {
        let run = check_fixture(
            mode,
            &["allow/a", "deny/b", "code/12345"],
            &["--format", "json"],
        );
        let expected = [
            r#""allow/a", "outcome": "admitted", "kind": null, "code": 0, "message": null"#,
            r#""deny/b", "outcome": "denied", "kind": "denied", "code": 9, "message": "deny/b is denied""#,
            r#""code/12345", "outcome": "failed", "kind": "policy-error", "code": 12345, "message": "as asked""#,
        ];
        let expected: Vec<Value> = expected
            .iter()
            .map(|fields| format!(r#"{{"instance_id": "{INSTANCE}", "package": {fields}}}"#))
            .map(|object| serde_json::from_str(&object).unwrap())
            .collect();
        assert_eq!(objects(&run), expected, "{mode:?}");
    }
}

#[test]
fn metadata_is_unavailable_offline() {
    for mode in [Mode::Native, Mode::Component] {
        let run = check_fixture(mode, &["metadata"], &["--format", "json"]);
        assert_eq!(objects(&run)[0]["code"], 14);
        assert_eq!(
            objects(&run)[0]["message"],
            "there is no metadata offline: remove --offline to get it from the service, or replace it with --metadata FILE"
        );
        assert_eq!(run.status.code(), Some(2));
    }
}

#[test]
fn the_demo_has_the_same_outcomes_in_both_modes() {
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/wasm-policy/demo");
    let file = |name: &str| demo.join(name).to_str().unwrap().to_owned();
    let (pins, metadata) = (file("cipd.versions"), file("metadata.json"));
    let arguments = [
        "--format",
        "json",
        "--resolved-versions",
        &pins,
        "--metadata",
        &metadata,
    ];
    let runs = [Mode::Native, Mode::Component].map(|mode| check(mode, "wasm-policy", &arguments));
    let [native, component] = &runs;
    assert_eq!(objects(native), objects(component));
    assert_eq!(native.status.code(), Some(1));
    assert_eq!(component.status.code(), Some(1));
    let outcomes: Vec<_> = objects(native)
        .iter()
        .map(|pin| pin["outcome"].clone())
        .collect();
    assert!(outcomes.contains(&"admitted".into()) && outcomes.contains(&"denied".into()));
}

#[test]
fn a_component_is_compiled_once_with_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let pin = format!("allow/a:{INSTANCE}");
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_admit"));
        command
            .args(["check", "-vv", &pin, "--offline", "--cache-dir"])
            .arg(&cache);
        command
            .arg("--component")
            .arg(component("conformance-fixture"));
        let run = command.output().unwrap();
        assert_eq!(run.status.code(), Some(0), "{run:?}");
        String::from_utf8(run.stderr).unwrap()
    };
    assert!(run().contains("compiled the component"));
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
    assert!(run().contains("loaded the compiled component from the cache"));
}

#[test]
fn an_unusable_cache_is_a_warning() {
    let pin = format!("allow/a:{INSTANCE}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_admit"));
    command.args([
        "check",
        &pin,
        "--offline",
        "--cache-dir",
        "/dev/null/cache",
        "--component",
    ]);
    let run = command
        .arg(component("conformance-fixture"))
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let stderr = str::from_utf8(&run.stderr).unwrap();
    let warning = "WARN cannot store compiled components in the cache directory";
    assert_eq!(stderr.matches(warning).count(), 1, "{stderr}");
}
