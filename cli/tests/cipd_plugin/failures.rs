//! Failures of the policy, and of the command line.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use conformance::modes::native;
use conformance::{ErrorKind, GRACE, PluginState, Source, Wire, host, pin};

use super::forwarding::{PolicyKind, admit, forwarded_command, outcome, over_both_wires};

const DEADLINE_EXCEEDED: i32 = 4;
const RESOURCE_EXHAUSTED: i32 = 8;
const INTERNAL: i32 = 13;

/// Checks packages one after the other, and returns codes and messages; `None` is an
/// admission.
async fn answers(source: impl Into<Source>, packages: &[&str]) -> Vec<Option<(i32, String)>> {
    let plugin = host().plugin(source);
    let mut answers = Vec::new();
    for package in packages {
        let outcome = outcome(&plugin.check_admission(&pin(package))).await;
        answers.push(outcome.map(|outcome| {
            assert_eq!(outcome.kind, ErrorKind::PolicyError, "{outcome:?}");
            (outcome.code.unwrap(), outcome.message)
        }));
    }
    assert_eq!(
        plugin.state(),
        PluginState::Running,
        "the client sees no crash"
    );
    plugin.close(GRACE).await;
    answers
}

fn answer(code: i32, message: &str) -> Option<(i32, String)> {
    Some((code, message.to_owned()))
}

over_both_wires! {
    async fn a_policy_that_cannot_be_launched_fails_every_check_with_the_reason(wire: Wire) {
        let component = [
            OsString::from(admit()),
            "cipd-plugin".into(),
            "--component=/does/not/exist".into(),
        ];
        let failed = answer(
            INTERNAL,
            "launch: failed to launch the plugin: cannot read the component `/does/not/exist`",
        );
        let component = conformance::NativeCommand::new(component).wire(wire);
        assert_eq!(answers(component, &["a", "b"]).await, [failed.clone(), failed]);

        let command = forwarded_command(wire, &[], &["/does/not/exist".into()]);
        let failed = answer(
            INTERNAL,
            "launch: failed to launch the plugin: fork/exec /does/not/exist: no such file or directory",
        );
        assert_eq!(answers(command, &["a", "b"]).await, [failed.clone(), failed]);
    }

    async fn only_the_check_that_times_out_fails(wire: Wire) {
        for policy in PolicyKind::BOTH {
            let source = policy.forwarded(wire, "conformance-fixture", &["--timeout", "500ms"]);
            let late = answer(
                DEADLINE_EXCEEDED,
                "timeout: the admission plugin did not answer within 0.5s",
            );
            let answers = answers(source, &["allow/a", "hang", "allow/b"]).await;
            assert_eq!(answers, [None, late, None], "{policy:?}");
        }
    }

    async fn a_crash_fails_this_check_and_all_later_ones(wire: Wire) {
        for (policy, status) in PolicyKind::BOTH.into_iter().zip([7, 1]) {
            let source = policy.forwarded(wire, "conformance-fixture", &[]);
            let crashed = answer(
                INTERNAL,
                &format!("crash: the admission plugin terminated: exit status {status}"),
            );
            // The first check was admitted before the crash; the last one fails.
            let answers = answers(source, &["allow/a", "exit/7", "allow/b"]).await;
            assert_eq!(answers, [None, crashed.clone(), crashed], "{policy:?}");
        }
    }

    async fn a_component_that_exceeds_a_limit_fails_with_resource_exhausted(wire: Wire) {
        let options = ["--memory-limit", "32MiB"];
        let source = PolicyKind::Component.forwarded(wire, "conformance-fixture", &options);
        let exceeded = answer(
            RESOURCE_EXHAUSTED,
            "resource: the admission plugin terminated: trap: the memory limit of 32 MiB was exceeded",
        );
        assert_eq!(answers(source, &["grow"]).await, [exceeded]);
    }

    async fn a_policy_that_breaks_the_protocol_fails_its_checks(wire: Wire) {
        let fixture = [native("conformance-fixture").into(), "version-99".into()];
        let failed = answer(
            INTERNAL,
            "version: unknown protocol version 99: expecting 1",
        );
        let answers = answers(forwarded_command(wire, &[], &fixture), &["a", "b"]).await;
        assert_eq!(answers, [failed.clone(), failed]);
    }
}

#[test]
fn a_wrong_command_line_is_refused_with_the_usage() {
    let cases: [(&[&str], &str); 4] = [
        (&[], "no policy: pass a COMMAND"),
        (
            &["--component", "a.wasm", "--", "./b"],
            "'--component <FILE>' cannot be used with '[COMMAND]...'",
        ),
        (
            &["--inherit-env", "--component", "a.wasm"],
            "cannot be used with",
        ),
        (
            &["--pins", "-", "--", "./b"],
            "unexpected argument '--pins'",
        ),
    ];
    for (arguments, complaint) in cases {
        let run = Command::new(admit())
            .arg("cipd-plugin")
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(2));
        let stderr = str::from_utf8(&run.stderr).unwrap();
        assert!(stderr.contains(complaint), "{stderr}");
        assert!(stderr.contains("Usage: admit cipd-plugin"), "{stderr}");
        assert!(run.stdout.is_empty());
    }
}

#[test]
fn stdin_that_is_not_from_a_client_is_an_error() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, b"\0 no frame and no handshake").unwrap();
    drop(writer);
    let run = Command::new(admit())
        .args(["cipd-plugin", "--", "/does/not/exist"])
        .stdin(reader)
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(1));
    let stderr = str::from_utf8(&run.stderr).unwrap();
    assert!(
        stderr.starts_with(
            "error: cannot serve the client\n  caused by: the host broke the protocol"
        ),
        "{stderr}"
    );
    assert!(run.stdout.is_empty());
}
