//! Every event that ends a plugin: which error checks get, and how long it is cached.

use std::time::Duration;

use admission_host::{ErrorKind, Exit};
use conformance::{
    GRACE, Mode, NativeCommand, Pin, Plugin, PluginOptions, PluginState, Promise, error_of,
    guarded, host, in_every_mode, in_every_stdio_mode, pin,
};

/// The error that an event gives to every pending check and to every later one.
struct Event {
    text: String,
    kind: ErrorKind,
    state: PluginState,
}

/// Describes an event that breaks the plugin.
fn breaks(kind: ErrorKind, text: impl Into<String>) -> Event {
    Event {
        text: text.into(),
        kind,
        state: PluginState::Broken,
    }
}

/// Describes the closing of the plugin.
fn closes() -> Event {
    Event {
        text: "the admission plugin is terminating".to_owned(),
        kind: ErrorKind::Aborted,
        state: PluginState::Closed,
    }
}

/// A check that was requested before the event, or perhaps just after it.
struct Check {
    pin: Pin,
    promise: Promise,
    /// Whether it was certainly requested before.
    in_time: bool,
}

fn check_all(plugin: &Plugin, packages: &[&str]) -> Vec<Check> {
    let asked = packages.iter().zip(0..).map(|(package, place)| {
        let pin = pin(package);
        let promise = plugin.check_admission(&pin);
        // The first check starts the plugin, which may fail before the second check.
        let in_time = place == 0 || !promise.is_settled();
        Check {
            pin,
            promise,
            in_time,
        }
    });
    asked.collect()
}

impl Event {
    /// Checks these packages, and expects the event to end the checks.
    async fn assert_ends(&self, plugin: &Plugin, packages: &[&str]) {
        let asked = check_all(plugin, packages);
        self.assert_ended(plugin, &asked).await;
    }

    /// Expects the event to end all these checks.
    async fn assert_ended(&self, plugin: &Plugin, asked: &[Check]) {
        for check in asked {
            self.assert_error_of(&check.promise).await;
        }
        assert_eq!(plugin.state(), self.state);
        for Check { pin, promise, .. } in asked.iter().filter(|check| check.in_time) {
            assert!(plugin.check_admission(pin).same_as(promise), "not kept");
        }
        self.assert_sticks(plugin, &pin("not/checked/before")).await;

        plugin.clear_cache();
        for Check { pin, promise, .. } in asked {
            assert!(!plugin.check_admission(pin).same_as(promise), "not cleared");
            self.assert_sticks(plugin, pin).await;
        }

        plugin.close(GRACE).await;
        assert_eq!(plugin.state(), self.state, "the first event counts");
        self.assert_sticks(plugin, &pin("checked/after/close"))
            .await;
    }

    /// Checks `pin`, which has no promise: the error is returned at once and not cached.
    async fn assert_sticks(&self, plugin: &Plugin, pin: &Pin) {
        let promise = plugin.check_admission(pin);
        assert!(promise.is_settled());
        self.assert_error_of(&promise).await;
        assert!(!plugin.check_admission(pin).same_as(&promise), "kept");
    }

    async fn assert_error_of(&self, promise: &Promise) {
        for _ in 0..2 {
            let error = error_of(promise).await;
            assert_eq!(error.to_string(), self.text);
            assert_eq!(error.kind(), self.kind);
            assert_eq!(error.code(), None, "an event is not a status of the plugin");
        }
    }
}

fn impatient() -> PluginOptions {
    PluginOptions::default().connect_timeout(Duration::from_millis(100))
}

/// Returns the text and kind of the fixture's crash.
fn crash(mode: Mode) -> (&'static str, ErrorKind) {
    match mode {
        Mode::Component => (
            "trap: wasm `unreachable` instruction executed",
            ErrorKind::Trap,
        ),
        _ => ("signal: killed", ErrorKind::Crash),
    }
}

in_every_mode! {
    async fn a_failed_launch_fails_every_check(mode: Mode) {
        let plugin = host().plugin(mode.missing());
        let text = match mode {
            Mode::Component => "failed to launch the plugin: cannot read the component `/does/not/exist`",
            _ => "failed to launch the plugin: fork/exec /does/not/exist: no such file or directory",
        };
        breaks(ErrorKind::Launch, text).assert_ends(&plugin, &["a", "b"]).await;
        assert_eq!(plugin.close(GRACE).await, Exit::NeverStarted);
    }

    async fn a_closed_host_fails_every_check(mode: Mode) {
        let host = host();
        host.close(GRACE).await;
        let plugin = host.plugin(mode.fixture(""));
        let text = "failed to launch the plugins grpc server: the plugins host is already closed";
        breaks(ErrorKind::Launch, text).assert_ends(&plugin, &["allow/a", "deny/b"]).await;
        assert_eq!(plugin.close(GRACE).await, Exit::NeverStarted);
    }

    async fn an_exit_before_hello_is_read_fails_every_check(mode: Mode) {
        let plugin = host().plugin(mode.fixture("exit-3"));
        let words = mode.exit_words(3);
        let text = format!("the admission plugin terminated before making ListAdmissions RPC: {words}");
        breaks(ErrorKind::Crash, text).assert_ends(&plugin, &["a", "b", "c"]).await;
    }

    async fn an_exit_after_hello_is_read_fails_every_check(mode: Mode) {
        let plugin = host().plugin(mode.fixture("exit-while-connecting"));
        let words = mode.exit_words(4);
        let text = format!("the admission plugin terminated before making ListAdmissions RPC: {words}");
        breaks(ErrorKind::Crash, text).assert_ends(&plugin, &["a", "b", "c"]).await;
    }

    async fn exit_status_0_before_connecting_fails_every_check(mode: Mode) {
        let plugin = host().plugin(mode.fixture("exit-0"));
        let text = "the admission plugin terminated before making ListAdmissions RPC: terminated with 0 exit code";
        breaks(ErrorKind::Crash, text).assert_ends(&plugin, &["a", "b"]).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_crash_before_connecting_fails_every_check(mode: Mode) {
        let plugin = host().plugin(mode.fixture("die-at-once"));
        let (words, kind) = crash(mode);
        let text = format!("the admission plugin terminated before making ListAdmissions RPC: {words}");
        breaks(kind, text).assert_ends(&plugin, &["a", "b"]).await;
    }

    async fn a_connect_timeout_fails_every_check(mode: Mode) {
        let plugin = host().plugin_with_options(mode.fixture("silent"), impatient());
        let text = "while waiting for ListAdmissions RPC: context deadline exceeded";
        breaks(ErrorKind::ConnectTimeout, text).assert_ends(&plugin, &["a", "b"]).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn another_protocol_version_fails_every_check(mode: Mode) {
        for version in [0, 99] {
            let plugin = host().plugin(mode.fixture(&format!("version-{version}")));
            let text = format!("unknown protocol version {version}: expecting 1");
            breaks(ErrorKind::Version, text).assert_ends(&plugin, &["a", "b"]).await;
        }
    }

    async fn an_exit_while_running_fails_every_check(mode: Mode) {
        for code in [0, 7] {
            let plugin = host().plugin(mode.fixture(""));
            let words = match code {
                0 => "terminated with 0 exit code".to_owned(),
                _ => mode.exit_words(code),
            };
            let text = format!("the admission plugin terminated: {words}");
            let exit = format!("exit/{code}");
            breaks(ErrorKind::Crash, text).assert_ends(&plugin, &["hang/a", "hang/b", &exit]).await;
        }
    }

    async fn a_crash_while_running_fails_every_check(mode: Mode) {
        let plugin = host().plugin(mode.fixture("die"));
        let (words, kind) = crash(mode);
        let text = format!("the admission plugin terminated: {words}");
        breaks(kind, text).assert_ends(&plugin, &["a", "b"]).await;
    }

    async fn a_close_aborts_every_check(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        plugin.check_admission(&pin("allow/a")).wait().await.expect("admitted");
        let asked = check_all(&plugin, &["hang/a", "hang/b"]);
        plugin.start_close(GRACE);
        closes().assert_ended(&plugin, &asked).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn verdicts_stay_cached_after_a_crash_until_a_clear(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let (admitted, denied) = (pin("allow/a"), pin("deny/b"));
        plugin.check_admission(&admitted).wait().await.expect("admitted");
        error_of(&plugin.check_admission(&denied)).await;
        let text = format!("the admission plugin terminated: {}", mode.exit_words(7));
        let event = breaks(ErrorKind::Crash, text);
        event.assert_error_of(&plugin.check_admission(&pin("exit/7"))).await;

        plugin.check_admission(&admitted).wait().await.expect("cached");
        let denial = error_of(&plugin.check_admission(&denied)).await;
        assert_eq!(denial.kind(), ErrorKind::Denied);
        plugin.clear_cache();
        event.assert_sticks(&plugin, &admitted).await;
        event.assert_sticks(&plugin, &denied).await;
        plugin.close(GRACE).await;
    }
}

in_every_stdio_mode! {
    async fn a_second_list_admissions_fails_every_check(mode: Mode) {
        let plugin = host().plugin(mode.fixture("connect-twice"));
        let text = "the admission plugin broke the protocol: a second list_admissions";
        breaks(ErrorKind::Protocol, text).assert_ends(&plugin, &["a", "b"]).await;
    }
}

#[test]
fn the_default_connect_timeout_is_30_seconds() {
    let options = format!("{:?}", PluginOptions::default());
    assert!(options.contains("connect_timeout: 30s"), "{options}");
}

#[tokio::test]
async fn a_command_that_cannot_be_run_fails_every_check() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("plain text");
    let not_permitted = format!("failed to launch the plugin: fork/exec {path}: permission denied");
    let empty: &[&str] = &[];
    let commands = [
        (
            empty,
            "need at least one argument (the executable to start)",
        ),
        (&[""], "failed to launch the plugin: exec: no command"),
        (
            &["no-such-program-anywhere", "argument"],
            r#"failed to launch the plugin: exec: "no-such-program-anywhere": executable file not found in $PATH"#,
        ),
        (&[path], &*not_permitted),
    ];
    guarded(async {
        for (argv, text) in commands {
            let plugin = host().plugin(NativeCommand::new(argv));
            breaks(ErrorKind::Launch, text)
                .assert_ends(&plugin, &["a", "b"])
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_command_found_through_the_working_directory_is_refused() {
    let here = std::env::current_dir().expect("there is one");
    let folder = tempfile::tempdir_in(here).expect("a temporary folder");
    std::os::unix::fs::symlink("/bin/true", folder.path().join("policy")).expect("it is ours");
    let path = folder.path().file_name().expect("it has one");
    let text = r#"failed to launch the plugin: exec: "policy": cannot run executable found relative to current directory"#;
    guarded(async {
        let command = NativeCommand::new(["policy"]).env("PATH", path);
        let plugin = host().plugin(command);
        breaks(ErrorKind::Launch, text)
            .assert_ends(&plugin, &["a"])
            .await;
    })
    .await;
}

/// Prints the bytes of a `list_admissions` of version 1.
const CONNECT: &str = r"printf '\004\012\002\010\001'";

#[tokio::test]
async fn a_plugin_that_closes_its_output_and_keeps_running_is_broken() {
    let text = "the admission plugin closed its output";
    guarded(async {
        for before in ["", CONNECT] {
            let script = format!("{before}\nexec >&-; cat >/dev/null");
            let plugin = host().plugin(NativeCommand::new(["sh", "-c", &*script]));
            breaks(ErrorKind::Crash, text)
                .assert_ends(&plugin, &["a", "b"])
                .await;
            assert_eq!(plugin.close(GRACE).await, Exit::Success);
        }
    })
    .await;
}
