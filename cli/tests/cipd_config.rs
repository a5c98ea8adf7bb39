//! `admit check --from-cipd-config`: finds and runs the plugin that `cipd` would use.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests create files, and panic on errors"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use conformance::modes::native;
use serde_json::Value;
use tempfile::TempDir;

const ID: &str = "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";
const PIN: &str = "a/b:qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";

/// The value of a variable for a command that is not a plugin, and creates a file.
const STARTED: &str = r#"["sh", "-c", "touch started"]"#;

/// Prepares to run `admit check --from-cipd-config` in `folder`, with these variables.
fn admit(folder: &Path, variables: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_admit"));
    command
        .args(["check", "--from-cipd-config"])
        .args(args)
        .env_remove("CIPD_ADMISSION_PLUGIN")
        .env_remove("CIPD_SERVICE_URL")
        // Ignores the file in /etc of this machine.
        .env("CIPD_CONFIG_FILE", "-")
        .envs(variables.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// Returns the text on stderr.
fn stderr(folder: &TempDir, variables: &[(&str, &str)], args: &[&str]) -> String {
    let run = admit(folder.path(), variables, args)
        .arg(PIN)
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    String::from_utf8(run.stderr).unwrap()
}

/// Returns the text on stderr, and requires that no plugin was started.
fn refusal(folder: &TempDir, variables: &[(&str, &str)]) -> String {
    let text = stderr(folder, variables, &[]);
    assert!(!folder.path().join("started").exists(), "{text}");
    text
}

#[test]
fn the_plugin_of_the_environment_is_named_in_one_line() {
    let folder = TempDir::new().unwrap();
    let variables = [("CIPD_ADMISSION_PLUGIN", STARTED)];
    let line = "using the plugin `sh` of CIPD_ADMISSION_PLUGIN with --wire grpc and --inherit-env, as cipd does";
    assert_eq!(stderr(&folder, &variables, &[]).lines().next(), Some(line));
    assert!(!stderr(&folder, &variables, &["--quiet"]).contains(line));
}

#[test]
fn the_plugin_of_the_file_is_named_in_one_line() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("cipd.cfg");
    let text = "future { x: 1 }\nplugins { admission { cmd: '/opt/\\tpolicy' args: '--strict' } }";
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let variables = [
        ("CIPD_CONFIG_FILE", file),
        ("CIPD_ADMISSION_PLUGIN", "null"),
    ];
    assert_eq!(
        stderr(&folder, &variables, &[]).lines().next(),
        Some(&*format!(
            "using the plugin `/opt/\\tpolicy` of {file} with --wire grpc and --inherit-env, as cipd does"
        ))
    );
}

/// Returns the outcome of one check by the fixture of the conformance tests, when `cipd` is
/// configured to use it. `package` selects what the fixture does.
fn outcome(package: &str, variables: &[(&str, &str)], args: &[&str]) -> Value {
    let folder = TempDir::new().unwrap();
    let plugin = serde_json::to_string(&[native("conformance-fixture")]).unwrap();
    let pin = format!("{package}:{ID}");
    let run = admit(folder.path(), variables, args)
        .env("CIPD_ADMISSION_PLUGIN", plugin)
        .args(["--format", "json", &pin])
        .output()
        .unwrap();
    serde_json::from_slice(&run.stdout).unwrap()
}

#[test]
fn a_plugin_of_cipd_gets_the_grpc_handshake() {
    let folder = TempDir::new().unwrap();
    let plugin = r#"["sh", "-c", "head -c 1 >\"$0\"", "first"]"#;
    stderr(&folder, &[("CIPD_ADMISSION_PLUGIN", plugin)], &[]);
    // The handshake is a JSON object.
    assert_eq!(fs::read(folder.path().join("first")).unwrap(), b"{");
}

#[test]
fn a_plugin_of_cipd_gets_the_whole_environment() {
    let outcome = outcome(
        "environment",
        &[("SECRET_OF_THE_HOST", "1")],
        &["--env", "ONE_MORE=2"],
    );
    assert_eq!(outcome["outcome"], "denied", "{outcome}");
    let names: Vec<_> = outcome["message"].as_str().unwrap().split(' ').collect();
    for name in ["SECRET_OF_THE_HOST", "ONE_MORE", "CIPD_ADMISSION_PLUGIN"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[test]
fn the_plugin_gets_the_service_url_that_cipd_would_send() {
    let service_url = |variables: &[(&str, &str)], args: &[&str]| {
        let outcome = outcome("service", variables, args);
        outcome["message"].as_str().unwrap().to_owned()
    };
    let variable = [("CIPD_SERVICE_URL", "https://cipd.example.com/")];
    assert_eq!(
        service_url(&[], &[]),
        "https://chrome-infra-packages.appspot.com"
    );
    assert_eq!(service_url(&variable, &[]), "https://cipd.example.com");
    assert_eq!(
        service_url(&variable, &["--service-url", "https://other.example.com"]),
        "https://other.example.com"
    );
}

#[test]
fn an_empty_program_fails_the_first_check() {
    for nothing in [r#"[""]"#, "[null]"] {
        let folder = TempDir::new().unwrap();
        let variables = [("CIPD_ADMISSION_PLUGIN", nothing)];
        let run = admit(folder.path(), &variables, &[PIN, "--format", "json"])
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(2), "{run:?}");
        let outcome: Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!(outcome["kind"], "launch", "{outcome}");
    }
}

#[test]
fn hints_for_a_plugin_of_cipd_name_only_options_that_it_can_have() {
    let stderr = |plugin| {
        let variables = [("CIPD_ADMISSION_PLUGIN", plugin)];
        stderr(&TempDir::new().unwrap(), &variables, &["--quiet"])
    };
    let hint = |text: &str| text.lines().last().map(str::to_owned);
    assert_eq!(
        hint(&stderr(r#"["sh", "-c", "exit 3"]"#)).as_deref(),
        Some(
            "  hint: the plugin exited before it connected, as it would with cipd; -vv shows everything that it logs"
        )
    );
    assert_eq!(
        hint(&stderr(r#"["/absent"]"#)).as_deref(),
        Some(
            "  hint: check that it exists and is executable; a name without a slash is looked up in PATH"
        )
    );
}

#[test]
fn no_configured_plugin_is_an_error() {
    assert_eq!(
        refusal(&TempDir::new().unwrap(), &[]),
        r#"error: cipd has no admission plugin: CIPD_ADMISSION_PLUGIN is unset or empty, and CIPD_CONFIG_FILE is `-`, which disables the file
  hint: without a plugin, `cipd` deploys without checks; to configure one, set CIPD_ADMISSION_PLUGIN='["/opt/policy", "--strict"]'
"#
    );
}

#[test]
fn a_variable_that_cipd_refuses_is_refused() {
    let folder = TempDir::new().unwrap();
    assert_eq!(
        refusal(
            &folder,
            &[("CIPD_ADMISSION_PLUGIN", "/opt/policy --strict")]
        ),
        r#"error: bad CIPD_ADMISSION_PLUGIN "/opt/policy --strict": not a valid JSON
  caused by: expected value at line 1 column 1
  hint: it must be the command line as a list, such as CIPD_ADMISSION_PLUGIN='["/opt/policy", "--strict"]'
"#
    );
    let plugin = ("CIPD_ADMISSION_PLUGIN", STARTED);
    assert_eq!(
        refusal(&folder, &[plugin, ("CIPD_CONFIG_FILE", "etc/cipd.cfg")]),
        "error: bad CIPD_CONFIG_FILE \"etc/cipd.cfg\": must be an absolute path\n"
    );
    assert_eq!(
        refusal(&folder, &[plugin, ("CIPD_SERVICE_URL", "cipd.example.com")]),
        "error: bad CIPD_SERVICE_URL: expecting a root URL such as \
         https://chrome-infra-packages.appspot.com, not \"cipd.example.com\"\n"
    );
}

#[test]
fn a_file_that_cipd_cannot_load_is_refused() {
    let folder = TempDir::new().unwrap();
    let plugin = ("CIPD_ADMISSION_PLUGIN", STARTED);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let load = |file: &str| refusal(&folder, &[plugin, ("CIPD_CONFIG_FILE", file)]);
    let absent = path("absent");
    assert_eq!(
        load(&absent),
        format!(
            "error: loading CIPD config: cannot read {absent}\n  \
             caused by: No such file or directory (os error 2)\n"
        )
    );
    assert_eq!(
        load(&path("")),
        format!(
            "error: loading CIPD config: cannot read {}\n  caused by: Is a directory (os error 21)\n",
            folder.path().display()
        )
    );
    let binary = path("binary");
    fs::write(&binary, b"\x7fELF\x02\x01\xff\0").unwrap();
    assert_eq!(
        load(&binary),
        format!("error: loading CIPD config: {binary}:1: not valid UTF-8\n")
    );
}
