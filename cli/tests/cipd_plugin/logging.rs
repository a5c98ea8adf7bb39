//! What the client hears in log lines.

use conformance::logs::{Line, Lines};
use conformance::modes::native;
use conformance::peer::host::{Behaviour, Event, PeerHost};
use conformance::{GRACE, Plugin, Source, Wire, guarded, host, pin};
use tracing::Level;

use crate::relay::{Inner, Renamed, argv, over_both_wires, told};

/// Asks about a package, and returns the lines that the client logs of the plugin of this
/// name, but for those of the host itself.
async fn lines(source: impl Into<Source>, name: &str, package: &str) -> Vec<(Level, String)> {
    let lines = Lines::collect();
    let plugin = host().plugin(source);
    told(&plugin.check_admission(&pin(package))).await;
    plugin.close(GRACE).await;
    let ours = |line: &Line| !line.message.contains("deployment admission plugin");
    let lines = lines.of_plugin(name).into_iter().filter(ours);
    lines.map(|line| (line.level, line.message)).collect()
}

async fn relayed(
    (inner, wire): (Inner, Wire),
    name: &str,
    options: &[&str],
    package: &str,
) -> Vec<(Level, String)> {
    let name = format!("{name}-{inner:?}-{wire:?}");
    let renamed = Renamed::new(&name);
    let admit = renamed.admit.clone().into();
    let source = inner.relayed_by(wire, admit, "conformance-fixture", options);
    lines(source, &name, package).await
}

fn line(level: Level, text: &str) -> (Level, String) {
    (level, text.to_owned())
}

over_both_wires! {
    async fn lines_pass_at_their_level_from_info(wire: Wire) {
        let said = [
            line(Level::INFO, r#"an info line :: {"answer":42}"#),
            line(Level::WARN, "a warning line"),
            line(Level::ERROR, "an error line"),
        ];
        for inner in Inner::BOTH {
            assert_eq!(relayed((inner, wire), "logging", &[], "log").await, said);
        }
    }

    async fn what_could_move_the_cursor_is_escaped_once(wire: Wire) {
        let said = [line(Level::INFO, r"one\ntwo\r\u{1b}[2Jthree")];
        for inner in Inner::BOTH {
            assert_eq!(
                relayed((inner, wire), "injecting", &[], "log-injection").await,
                said
            );
        }
    }

    async fn what_the_plugin_prints_to_stderr_passes_too(wire: Wire) {
        let said = [line(Level::INFO, "a stray line of the policy")];
        assert_eq!(
            relayed((Inner::Command, wire), "printing", &[], "print").await,
            said
        );
    }

    async fn a_failure_is_told_once_with_all_that_is_known(wire: Wire) {
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
            told(&plugin.check_admission(&pin(package))).await.unwrap();
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
        let heard = relayed((Inner::Command, wire), "warning", &options, "allow/a").await;
        let warned = line(
            Level::WARN,
            r#"the variable is not set, so the plugin does not get it :: {"name":"\"NO_SUCH_VARIABLE\""}"#,
        );
        assert_eq!(heard, [warned]);
    }
}

/// Of a client that takes every line, which is another than our own host.
#[tokio::test]
async fn a_client_hears_that_lines_are_missing_before_the_verdict() {
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
        let said = "the plugin logs more than 200 lines a second, of which the rest is dropped";
        assert!(
            lines.contains(&("warning".into(), said.into())),
            "{lines:?}"
        );
        assert!(plugin.close().await.0.success());
    })
    .await;
}
