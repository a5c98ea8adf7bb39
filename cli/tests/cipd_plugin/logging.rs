//! Log lines that the client gets.

use conformance::logs::{Line, Lines};
use conformance::modes::native;
use conformance::peer::host::{Behaviour, Event, PeerHost};
use conformance::{GRACE, Source, Wire, guarded, host, pin};
use tracing::Level;

use super::forwarding::{PolicyKind, Renamed, argv, outcome, over_both_wires};

/// Checks a package, and returns the lines that the client logs for the plugin of this
/// name, without those of the host itself.
async fn lines(source: impl Into<Source>, name: &str, package: &str) -> Vec<(Level, String)> {
    let lines = Lines::collect();
    let plugin = host().plugin(source);
    outcome(&plugin.check_admission(&pin(package))).await;
    plugin.close(GRACE).await;
    let ours = |line: &Line| !line.message.contains("deployment admission plugin");
    let lines = lines.of_plugin(name).into_iter().filter(ours);
    lines.map(|line| (line.level, line.message)).collect()
}

async fn forwarded(
    (policy, wire): (PolicyKind, Wire),
    name: &str,
    options: &[&str],
    package: &str,
) -> Vec<(Level, String)> {
    let name = format!("{name}-{policy:?}-{wire:?}");
    let renamed = Renamed::new(&name);
    let admit = renamed.admit.clone().into();
    let source = policy.forwarded_by(wire, admit, "conformance-fixture", options);
    lines(source, &name, package).await
}

fn line(level: Level, text: &str) -> (Level, String) {
    (level, text.to_owned())
}

over_both_wires! {
    async fn lines_from_info_keep_their_level(wire: Wire) {
        let expected = [
            line(Level::INFO, r#"an info line :: {"answer":42}"#),
            line(Level::WARN, "a warning line"),
            line(Level::ERROR, "an error line"),
        ];
        for policy in PolicyKind::BOTH {
            assert_eq!(forwarded((policy, wire), "logging", &[], "log").await, expected);
        }
    }

    async fn control_characters_are_escaped_once(wire: Wire) {
        let expected = [line(Level::INFO, r"one\ntwo\r\u{1b}[2Jthree")];
        for policy in PolicyKind::BOTH {
            assert_eq!(
                forwarded((policy, wire), "injecting", &[], "log-injection").await,
                expected
            );
        }
    }

    async fn stderr_of_the_policy_is_logged(wire: Wire) {
        let expected = [line(Level::INFO, "a stray line of the policy")];
        assert_eq!(
            forwarded((PolicyKind::Command, wire), "printing", &[], "print").await,
            expected
        );
    }

    async fn a_failure_is_logged_once_in_full(wire: Wire) {
        let name = &format!("failing-{wire:?}");
        let renamed = Renamed::new(name);
        let source = conformance::NativeCommand::new([
            renamed.admit.as_os_str(),
            "cipd-plugin".as_ref(),
            "--component=/does/not/exist".as_ref(),
        ])
        .wire(wire);
        let lines_of = Lines::collect();
        let plugin = host().plugin(source);
        for package in ["a", "b", "c"] {
            outcome(&plugin.check_admission(&pin(package))).await.unwrap();
        }
        plugin.close(GRACE).await;
        let mut lines = lines_of.of_plugin(name);
        lines.retain(|line| line.level == Level::ERROR);
        let lines: Vec<_> = lines.iter().map(|line| &*line.message).collect();
        assert_eq!(
            lines,
            [
                "the plugin `exist` failed: failed to launch the plugin: cannot read the component `/does/not/exist`",
                "  caused by: No such file or directory (os error 2)",
                "  kind: launch",
            ]
        );
    }

    async fn a_warning_about_the_options_reaches_the_client(wire: Wire) {
        let options = ["--env", "NO_SUCH_VARIABLE"];
        let lines = forwarded((PolicyKind::Command, wire), "warning", &options, "allow/a").await;
        let warned = line(
            Level::WARN,
            r#"the variable is not set, so the plugin does not get it :: {"name":"\"NO_SUCH_VARIABLE\""}"#,
        );
        assert_eq!(lines, [warned]);
    }
}

/// The client is a peer host, because our own host would drop lines itself.
#[tokio::test]
async fn a_warning_about_dropped_lines_precedes_the_verdict() {
    guarded(async {
        let client = PeerHost::start();
        let command = argv(&[], &[native("conformance-fixture").into()]);
        let mut plugin = client.launch(command, Behaviour::default()).await;
        plugin.connected().await;
        plugin.ask("1", "chatter/6000").await;
        let mut lines = Vec::new();
        while let Event::Logged(line) = plugin.event().await {
            lines.push((line.severity, line.message));
        }
        let expected = "the plugin logs more than 200 lines a second; the rest is dropped";
        assert!(
            lines.contains(&("warning".into(), expected.into())),
            "{lines:?}"
        );
        assert!(plugin.close().await.0.success());
    })
    .await;
}
