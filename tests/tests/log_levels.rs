//! What plugins log, at which level it arrives, and what is not sent at all.

use conformance::logs::{Line, Lines};
use conformance::{GRACE, Host, LogLevel, Mode, Plugin, guarded, options, pin};
use tracing::Level;

/// Returns the fixture's own lines when its host asks for `level`.
async fn lines_at(level: LogLevel, mode: Mode, lines: &Lines) -> Vec<Line> {
    let before = lines.of_plugin(mode.fixture_name()).len();
    let host = Host::new(options().plugin_log_level(level));
    let plugin = Plugin::new(&host, mode.fixture(""));
    plugin
        .check_admission(&pin("log"))
        .wait()
        .await
        .expect("admitted");
    plugin.close(GRACE).await;
    let after = lines.of_plugin(mode.fixture_name()).split_off(before);
    after
        .into_iter()
        .filter(|line| line.message.contains(" line"))
        .collect()
}

/// One test for both modes, one after the other: a process has one collector.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_arrive_at_their_level_from_the_level_asked_for() {
    let lines = Lines::collect();
    let said = [
        (Level::DEBUG, "a debug line"),
        (Level::INFO, r#"an info line :: {"answer":42}"#),
        (Level::WARN, "a warning line"),
        (Level::ERROR, "an error line"),
    ];
    guarded(async {
        for mode in [Mode::Native, Mode::Component] {
            let levels = [
                LogLevel::Debug,
                LogLevel::Info,
                LogLevel::Warning,
                LogLevel::Error,
            ];
            for (level, dropped) in levels.into_iter().zip(0..) {
                let heard = lines_at(level, mode, lines).await;
                let expected: Vec<_> = said[dropped..]
                    .iter()
                    .map(|&(level, message)| Line {
                        level,
                        plugin: mode.fixture_name().to_owned(),
                        message: message.to_owned(),
                    })
                    .collect();
                assert_eq!(heard, expected, "{mode:?}, {level}");
            }
        }
    })
    .await;
}
