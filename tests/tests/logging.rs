//! Log lines of plugins, and log lines of the host about them.

use std::time::Duration;

use conformance::logs::{Line, Lines};
use conformance::named::Named;
use conformance::{
    GRACE, Host, LogLevel, Mode, Plugin, PluginOptions, error_of, host, in_every_mode, options, pin,
};
use tracing::Level;

/// A plugin with a name of its own, which separates its lines from those of other tests.
struct Logged {
    plugin: Plugin,
    name: String,
    lines: &'static Lines,
    _fixture: Named,
}

impl Logged {
    fn new(mode: Mode, name: &str, argument: &str) -> Self {
        Self::of(&host(), mode, name, argument)
    }

    fn of(host: &Host, mode: Mode, name: &str, argument: &str) -> Self {
        let lines = Lines::collect();
        let name = format!("{name}-{mode:?}");
        let fixture = Named::new(mode, &name, argument);
        Self {
            plugin: host.plugin(fixture.source.clone()),
            name,
            lines,
            _fixture: fixture,
        }
    }

    /// Returns the lines so far with this message.
    fn lines_with(&self, message: &str) -> Vec<Line> {
        let mut lines = self.lines.of_plugin(&self.name);
        lines.retain(|line| line.message == message);
        lines
    }

    fn assert_logged_once(&self, level: Level, message: &str) {
        let [line] = &self.lines_with(message)[..] else {
            panic!("not once: {:?}", self.lines.of_plugin(&self.name));
        };
        assert_eq!(line.level, level);
    }
}

in_every_mode! {
    async fn lines_keep_their_level_and_those_below_the_configured_level_are_dropped(mode: Mode) {
        let sent = [
            (Level::DEBUG, "a debug line"),
            (Level::INFO, r#"an info line :: {"answer":42}"#),
            (Level::WARN, "a warning line"),
            (Level::ERROR, "an error line"),
        ];
        let levels = [LogLevel::Debug, LogLevel::Info, LogLevel::Warning, LogLevel::Error];
        for (level, dropped) in levels.into_iter().zip(0..) {
            let host = Host::new(options().plugin_log_level(level));
            let logged = Logged::of(&host, mode, &format!("from-{level}"), "");
            logged.plugin.check_admission(&pin("log")).wait().await.expect("admitted");
            logged.plugin.close(GRACE).await;
            let mut received = logged.lines.of_plugin(&logged.name);
            received.retain(|line| line.message.contains(" line"));
            let received: Vec<_> = received.iter().map(|line| (line.level, &*line.message)).collect();
            // The gRPC handshake has no log level; the plugin sends from `info` up.
            let unsent = usize::from(mode == Mode::Grpc);
            assert_eq!(received, sent[unsent.max(dropped)..], "{level}");
        }
    }

    async fn log_lines_are_rate_limited_and_dropped_lines_are_reported(mode: Mode) {
        let logged = Logged::new(mode, "chatting", "");
        // As many lines as the limit lets through in 30 s.
        logged.plugin.check_admission(&pin("chatter/6000")).wait().await.expect("admitted");
        let warning = "the plugin logs more than 200 lines a second; the rest is dropped";
        assert!(!logged.lines_with(warning).is_empty());
        logged.plugin.close(GRACE).await;
        let count = logged.lines_with("chatter").len();
        assert!((200..6_000).contains(&count), "{count}");
        assert!(!logged.lines_with("dropped log lines of the plugin").is_empty());
    }

    async fn lines_are_logged_before_the_plugin_connects(mode: Mode) {
        let logged = Logged::new(mode, "early", "log-first");
        logged.plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        logged.assert_logged_once(Level::INFO, "logged before list_admissions");
        logged.assert_logged_once(Level::DEBUG, "using deployment admission plugin");
        logged.plugin.close(GRACE).await;
    }

    async fn lines_are_logged_until_the_plugin_exits(mode: Mode) {
        let logged = Logged::new(mode, "late", "log-after-stdin");
        logged.plugin.check_admission(&pin("a")).wait().await.expect("admitted");
        logged.plugin.close(GRACE).await;
        logged.assert_logged_once(Level::INFO, "logged after the end of stdin");
    }

    async fn stderr_is_logged_line_by_line(mode: Mode) {
        let logged = Logged::new(mode, "stderr", "exit-3");
        error_of(&logged.plugin.check_admission(&pin("a"))).await;
        logged.plugin.close(GRACE).await;
        logged.assert_logged_once(Level::INFO, "no configuration");
    }

    async fn control_characters_in_a_line_are_escaped(mode: Mode) {
        let logged = Logged::new(mode, "injecting", "");
        logged.plugin.check_admission(&pin("log-injection")).wait().await.expect("admitted");
        logged.plugin.close(GRACE).await;
        logged.assert_logged_once(Level::INFO, r"one\ntwo\r\u{1b}[2Jthree");
    }

    async fn a_failed_start_logs_one_warning(mode: Mode) {
        let logged = Logged::new(mode, "failing", "exit-3");
        for package in ["a", "b"] {
            error_of(&logged.plugin.check_admission(&pin(package))).await;
        }
        logged.plugin.close(GRACE).await;
        logged.assert_logged_once(Level::WARN, "the admission plugin failed to start");
    }

    async fn a_crash_logs_one_warning_and_a_successful_exit_logs_none(mode: Mode) {
        for (package, count) in [("exit/7", 1), ("exit/0", 0)] {
            let logged = Logged::new(mode, &package.replace('/', "-"), "");
            error_of(&logged.plugin.check_admission(&pin(package))).await;
            logged.plugin.close(GRACE).await;
            let crashes = logged.lines_with("the admission plugin has crashed");
            assert_eq!(crashes.len(), count, "{package}");
            assert!(crashes.iter().all(|line| line.level == Level::WARN));
        }
    }

    async fn an_unknown_protocol_version_logs_an_error(mode: Mode) {
        let logged = Logged::new(mode, "outdated", "version-99");
        error_of(&logged.plugin.check_admission(&pin("a"))).await;
        logged.plugin.close(GRACE).await;
        logged.assert_logged_once(Level::ERROR, "unknown admission plugin protocol");
    }

    async fn a_plugin_that_fails_to_connect_is_asked_to_finish(mode: Mode) {
        let lines = Lines::collect();
        let name = format!("slow-{mode:?}");
        let fixture = Named::new(mode, &name, "silent");
        let options = PluginOptions::default().connect_timeout(Duration::from_millis(100));
        let plugin = host().plugin_with_options(fixture.source.clone(), options);
        error_of(&plugin.check_admission(&pin("a"))).await;
        // The plugin was not closed.
        lines.wait_for(&name, "the fixture was asked to finish").await;
    }

    async fn a_plugin_that_failed_to_start_is_not_started_again(mode: Mode) {
        let logged = Logged::new(mode, "once", "exit-3");
        for n in 0..20 {
            error_of(&logged.plugin.check_admission(&pin(&format!("a/{n}")))).await;
            logged.plugin.clear_cache();
        }
        logged.plugin.close(GRACE).await;
        logged.assert_logged_once(Level::INFO, "no configuration");
    }
}
