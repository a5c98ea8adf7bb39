//! Every event that ends a plugin's life: who is told what, and for how long.

use std::time::Duration;

use admission_host::{ErrorKind, Exit};
use conformance::{
    GRACE, Mode, NativeCommand, Pin, Plugin, PluginOptions, PluginState, Promise, error_of,
    guarded, host, in_every_mode, in_every_stdio_mode, pin,
};

/// What an event makes of every check that it leaves undecided, and of every later one.
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

/// A check that was asked before the event, or perhaps just after it.
struct Asked {
    pin: Pin,
    promise: Promise,
    /// Whether it was certainly before.
    in_time: bool,
}

fn ask(plugin: &Plugin, packages: &[&str]) -> Vec<Asked> {
    let asked = packages.iter().zip(0..).map(|(package, place)| {
        let pin = pin(package);
        let promise = plugin.check_admission(&pin);
        // The first starts the plugin, which may have failed before the second.
        let in_time = place == 0 || !promise.is_settled();
        Asked {
            pin,
            promise,
            in_time,
        }
    });
    asked.collect()
}

impl Event {
    /// Waits for the event, which is to end the checks of these packages.
    async fn ends(&self, plugin: &Plugin, packages: &[&str]) {
        let asked = ask(plugin, packages);
        self.has_ended(plugin, &asked).await;
    }

    /// Waits for the event, which is to end all that was `asked`.
    async fn has_ended(&self, plugin: &Plugin, asked: &[Asked]) {
        for check in asked {
            self.is_told_by(&check.promise).await;
        }
        assert_eq!(plugin.state(), self.state);
        for Asked { pin, promise, .. } in asked.iter().filter(|check| check.in_time) {
            assert!(plugin.check_admission(pin).same_as(promise), "not kept");
        }
        self.sticks(plugin, &pin("never/asked/before")).await;

        plugin.clear_cache();
        for Asked { pin, promise, .. } in asked {
            assert!(!plugin.check_admission(pin).same_as(promise), "not cleared");
            self.sticks(plugin, pin).await;
        }

        plugin.close(GRACE).await;
        assert_eq!(plugin.state(), self.state, "the first end stays");
        self.sticks(plugin, &pin("asked/after/close")).await;
    }

    /// Asks for `pin`, which has no promise: the answer is there at once and not kept.
    async fn sticks(&self, plugin: &Plugin, pin: &Pin) {
        let promise = plugin.check_admission(pin);
        assert!(promise.is_settled());
        self.is_told_by(&promise).await;
        assert!(!plugin.check_admission(pin).same_as(&promise), "kept");
    }

    async fn is_told_by(&self, promise: &Promise) {
        for _ in 0..2 {
            let error = error_of(promise).await;
            assert_eq!(error.to_string(), self.text);
            assert_eq!(error.kind(), self.kind);
            assert_eq!(error.code(), None, "an event is no status of the plugin");
        }
    }
}

fn impatient() -> PluginOptions {
    PluginOptions::default().connect_timeout(Duration::from_millis(100))
}

/// Returns the words for the end that the fixture brings upon itself, and its kind.
fn death(mode: Mode) -> (&'static str, ErrorKind) {
    match mode {
        Mode::Component => (
            "trap: wasm `unreachable` instruction executed",
            ErrorKind::Trap,
        ),
        _ => ("signal: killed", ErrorKind::Crash),
    }
}

in_every_mode! {
    async fn a_launch_that_fails(mode: Mode) {
        let plugin = host().plugin(mode.missing());
        let text = match mode {
            Mode::Component => "failed to launch the plugin: cannot read the component `/does/not/exist`",
            _ => "failed to launch the plugin: fork/exec /does/not/exist: no such file or directory",
        };
        breaks(ErrorKind::Launch, text).ends(&plugin, &["a", "b"]).await;
        assert_eq!(plugin.close(GRACE).await, Exit::NeverStarted);
    }

    async fn a_host_that_is_closed(mode: Mode) {
        let host = host();
        host.close(GRACE).await;
        let plugin = host.plugin(mode.fixture(""));
        let text = "failed to launch the plugins grpc server: the plugins host is already closed";
        breaks(ErrorKind::Launch, text).ends(&plugin, &["allow/a", "deny/b"]).await;
        assert_eq!(plugin.close(GRACE).await, Exit::NeverStarted);
    }

    async fn an_exit_before_hello_is_read(mode: Mode) {
        let plugin = host().plugin(mode.fixture("exit-3"));
        let words = mode.exit_words(3);
        let text = format!("the admission plugin terminated before making ListAdmissions RPC: {words}");
        breaks(ErrorKind::Crash, text).ends(&plugin, &["a", "b", "c"]).await;
    }

    async fn an_exit_after_hello_is_read(mode: Mode) {
        let plugin = host().plugin(mode.fixture("exit-while-connecting"));
        let words = mode.exit_words(4);
        let text = format!("the admission plugin terminated before making ListAdmissions RPC: {words}");
        breaks(ErrorKind::Crash, text).ends(&plugin, &["a", "b", "c"]).await;
    }

    async fn an_exit_before_it_connects_that_says_all_is_well(mode: Mode) {
        let plugin = host().plugin(mode.fixture("exit-0"));
        let text = "the admission plugin terminated before making ListAdmissions RPC: terminated with 0 exit code";
        breaks(ErrorKind::Crash, text).ends(&plugin, &["a", "b"]).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_death_before_it_connects(mode: Mode) {
        let plugin = host().plugin(mode.fixture("die-at-once"));
        let (words, kind) = death(mode);
        let text = format!("the admission plugin terminated before making ListAdmissions RPC: {words}");
        breaks(kind, text).ends(&plugin, &["a", "b"]).await;
    }

    async fn no_connection_in_time(mode: Mode) {
        let plugin = host().plugin_with_options(mode.fixture("silent"), impatient());
        let text = "while waiting for ListAdmissions RPC: context deadline exceeded";
        breaks(ErrorKind::ConnectTimeout, text).ends(&plugin, &["a", "b"]).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_protocol_of_another_version(mode: Mode) {
        for version in [0, 99] {
            let plugin = host().plugin(mode.fixture(&format!("version-{version}")));
            let text = format!("unknown protocol version {version}: expecting 1");
            breaks(ErrorKind::Version, text).ends(&plugin, &["a", "b"]).await;
        }
    }

    async fn an_exit_while_it_serves(mode: Mode) {
        for code in [0, 7] {
            let plugin = host().plugin(mode.fixture(""));
            let words = match code {
                0 => "terminated with 0 exit code".to_owned(),
                _ => mode.exit_words(code),
            };
            let text = format!("the admission plugin terminated: {words}");
            let exit = format!("exit/{code}");
            breaks(ErrorKind::Crash, text).ends(&plugin, &["hang/a", "hang/b", &exit]).await;
        }
    }

    async fn a_death_while_it_serves(mode: Mode) {
        let plugin = host().plugin(mode.fixture("die"));
        let (words, kind) = death(mode);
        let text = format!("the admission plugin terminated: {words}");
        breaks(kind, text).ends(&plugin, &["a", "b"]).await;
    }

    async fn a_close(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        plugin.check_admission(&pin("allow/a")).wait().await.expect("admitted");
        let asked = ask(&plugin, &["hang/a", "hang/b"]);
        plugin.start_close(GRACE);
        closes().has_ended(&plugin, &asked).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn a_verdict_outlives_the_event_until_it_is_cleared(mode: Mode) {
        let plugin = host().plugin(mode.fixture(""));
        let (admitted, denied) = (pin("allow/a"), pin("deny/b"));
        plugin.check_admission(&admitted).wait().await.expect("admitted");
        error_of(&plugin.check_admission(&denied)).await;
        let text = format!("the admission plugin terminated: {}", mode.exit_words(7));
        let event = breaks(ErrorKind::Crash, text);
        event.is_told_by(&plugin.check_admission(&pin("exit/7"))).await;

        plugin.check_admission(&admitted).wait().await.expect("remembered");
        let denial = error_of(&plugin.check_admission(&denied)).await;
        assert_eq!(denial.kind(), ErrorKind::Denied);
        plugin.clear_cache();
        event.sticks(&plugin, &admitted).await;
        event.sticks(&plugin, &denied).await;
        plugin.close(GRACE).await;
    }
}

in_every_stdio_mode! {
    async fn a_second_list_admissions(mode: Mode) {
        let plugin = host().plugin(mode.fixture("connect-twice"));
        let text = "the admission plugin broke the protocol: a second list_admissions";
        breaks(ErrorKind::Protocol, text).ends(&plugin, &["a", "b"]).await;
    }
}

#[test]
fn a_plugin_has_30_seconds_to_connect_unless_told_otherwise() {
    let options = format!("{:?}", PluginOptions::default());
    assert!(options.contains("connect_timeout: 30s"), "{options}");
}

#[tokio::test]
async fn a_command_that_cannot_be_run() {
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
                .ends(&plugin, &["a", "b"])
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_command_found_by_way_of_the_working_directory() {
    let here = std::env::current_dir().expect("there is one");
    let folder = tempfile::tempdir_in(here).expect("a temporary folder");
    std::os::unix::fs::symlink("/bin/true", folder.path().join("policy")).expect("it is ours");
    let path = folder.path().file_name().expect("it has one");
    let text = r#"failed to launch the plugin: exec: "policy": cannot run executable found relative to current directory"#;
    guarded(async {
        let command = NativeCommand::new(["policy"]).env("PATH", path);
        let plugin = host().plugin(command);
        breaks(ErrorKind::Launch, text).ends(&plugin, &["a"]).await;
    })
    .await;
}

/// Connects, as the bytes of a `list_admissions` of version 1.
const CONNECT: &str = r"printf '\004\012\002\010\001'";

#[tokio::test]
async fn an_output_that_ends_while_the_plugin_lives() {
    let text = "the admission plugin closed its output";
    guarded(async {
        for before in ["", CONNECT] {
            let script = format!("{before}\nexec >&-; cat >/dev/null");
            let plugin = host().plugin(NativeCommand::new(["sh", "-c", &*script]));
            breaks(ErrorKind::Crash, text)
                .ends(&plugin, &["a", "b"])
                .await;
            assert_eq!(plugin.close(GRACE).await, Exit::Success);
        }
    })
    .await;
}
