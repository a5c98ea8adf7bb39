//! No process of a native plugin outlives it or its host.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use admission_host::{ErrorKind, Exit, NativeCommand};
use conformance::liveness_pipe::LivenessPipe;
use conformance::modes::native;
use conformance::{GRACE, Host, Plugin, error_of, eventually, guarded, host, options, pin};
use rustix::process::{Pid, Signal, kill_process_group};

const GUARD: &str = env!("CARGO_BIN_EXE_guard");

/// Starts a process in a session of its own, whose parent exits.
const DAEMON: &str = "setsid sh -c 'sleep 1000 & echo up >&9'";

/// Starts a process in the plugin's group.
const GRANDCHILD: &str = "sleep 1000 & echo up >&9";

/// Exits at the end of stdin.
const POLITE: &str = "exec cat >/dev/null";

/// Does not exit by itself.
const STUBBORN: &str = "exec sleep 1000";

/// Defines a test that runs with and without a guard.
macro_rules! with_and_without_a_guard {
    ($(async fn $name:ident() $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn body() $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn without_a_guard() {
                conformance::guarded(body()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn with_a_guard() {
                conformance::guarded(conformance::under_guard(GUARD, body())).await;
            }
        }
    )*};
}

fn guarded_host() -> Host {
    Host::new(options().guard(GUARD, [""; 0]))
}

fn script(host: &Host, liveness: &LivenessPipe, commands: &[&str]) -> Plugin {
    host.plugin(NativeCommand::new(liveness.script(commands)))
}

/// A host in a process of its own, which leads a group like a job of a terminal.
struct OtherHost {
    process: Child,
    stdout: BufReader<ChildStdout>,
}

impl OtherHost {
    fn start(kind: &str, plugin: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_host"))
            .arg(kind)
            .args(plugin.into_iter().map(Into::into))
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was built");
        let stdout = process.stdout.take().expect("stdout is piped");
        Self {
            process,
            stdout: BufReader::new(stdout),
        }
    }

    /// Kills its group, as a supervisor of the host does.
    fn kill(&mut self) {
        let group = Pid::from_child(&self.process);
        kill_process_group(group, Signal::KILL).expect("it is there");
        self.process.wait().expect("it is ours");
    }
}

with_and_without_a_guard! {
    async fn a_grandchild_dies_with_a_plugin_that_is_closed() {
        let mut liveness = LivenessPipe::new();
        let plugin = script(&host(), &liveness, &[GRANDCHILD, POLITE]);
        let promise = plugin.check_admission(&pin("a"));
        liveness.lines(1).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        eventually(|| !liveness.has_writer()).await;
        assert_eq!(error_of(&promise).await.kind(), ErrorKind::Aborted);
    }

    async fn a_grandchild_dies_with_a_plugin_that_crashes() {
        let mut liveness = LivenessPipe::new();
        let plugin = script(&host(), &liveness, &[GRANDCHILD, "exit 7"]);
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(
            error.to_string(),
            "the admission plugin terminated before making ListAdmissions RPC: exit status 7"
        );
        eventually(|| !liveness.has_writer()).await;
        plugin.close(GRACE).await;
    }

    async fn a_plugin_that_does_not_exit_is_killed_at_the_end_of_the_grace() {
        let mut liveness = LivenessPipe::new();
        let plugin = script(&host(), &liveness, &["echo up >&9", STUBBORN]);
        let _promise = plugin.check_admission(&pin("a"));
        liveness.lines(1).await;
        assert_eq!(plugin.close(Duration::ZERO).await, Exit::KilledByHost);
        assert!(!liveness.has_writer());
    }

    async fn dropping_the_last_handle_kills_every_process() {
        let mut liveness = LivenessPipe::new();
        let plugin = script(&host(), &liveness, &[GRANDCHILD, STUBBORN]);
        let _promise = plugin.check_admission(&pin("a"));
        liveness.lines(1).await;
        drop(plugin);
        eventually(|| !liveness.has_writer()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_is_gone_when_close_returns() {
    guarded(async {
        for last in [POLITE, STUBBORN] {
            let mut liveness = LivenessPipe::new();
            let plugin = script(&guarded_host(), &liveness, &[DAEMON, GRANDCHILD, last]);
            let _promise = plugin.check_admission(&pin("a"));
            liveness.lines(2).await;
            plugin.close(Duration::from_millis(500)).await;
            assert!(!liveness.has_writer(), "{last}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_dies_with_a_plugin_that_crashes() {
    guarded(async {
        let mut liveness = LivenessPipe::new();
        let plugin = script(&guarded_host(), &liveness, &[DAEMON, "exit 7"]);
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(
            error.exit().map(Exit::to_string).as_deref(),
            Some("exit status 7")
        );
        // The daemon dies without a close.
        eventually(|| !liveness.has_writer()).await;
        plugin.close(GRACE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_is_closed_as_it_starts_leaves_no_process() {
    guarded(async {
        for _ in 0..50 {
            let mut liveness = LivenessPipe::new();
            let plugin = script(&guarded_host(), &liveness, &[DAEMON, STUBBORN]);
            let _promise = plugin.check_admission(&pin("a"));
            plugin.close(Duration::ZERO).await;
            assert!(!liveness.has_writer());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_never_stop_forking_do_not_escape() {
    guarded(async {
        // Each process of a chain starts the next one and exits. A chain ends by itself, so
        // that one that escapes does not run forever.
        let hop = r#"hop() { [ "$1" -gt 20000 ] || { hop $(($1 + 1)) & }; }"#;
        let bomb =
            format!("setsid sh -c '{hop}; for n in 1 2 3 4 5 6 7 8; do hop 0; done; echo up >&9'");
        let mut liveness = LivenessPipe::new();
        let plugin = script(&guarded_host(), &liveness, &[&bomb, STUBBORN]);
        let _promise = plugin.check_admission(&pin("a"));
        liveness.lines(1).await;
        assert_eq!(plugin.close(Duration::ZERO).await, Exit::KilledByHost);
        assert!(!liveness.has_writer());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_tree_of_daemons_is_killed() {
    guarded(async {
        let grow = "grow() { echo up >&9; [ $1 = 0 ] || { n=$(($1 - 1)); setsid sh -c \"$grow; grow $n; grow $n; sleep 1000\" & }; }";
        let mut liveness = LivenessPipe::new();
        let plugin = script(
            &guarded_host(),
            &liveness,
            &[&format!("grow='{grow}'"), "export grow", grow, "grow 4", STUBBORN],
        );
        let _promise = plugin.check_admission(&pin("a"));
        liveness.lines(31).await;
        plugin.close(Duration::ZERO).await;
        assert!(!liveness.has_writer());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_host_leaves_no_process_of_a_guarded_plugin() {
    guarded(async {
        for last in [POLITE, STUBBORN] {
            let mut liveness = LivenessPipe::new();
            let plugin = liveness.script(&[DAEMON, GRANDCHILD, last]);
            let mut host = OtherHost::start("guarded", plugin);
            liveness.lines(2).await;
            host.kill();
            eventually(|| !liveness.has_writer()).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unguarded_plugin_dies_with_a_killed_host() {
    guarded(async {
        let mut liveness = LivenessPipe::new();
        let plugin = liveness.script(&["echo up >&9", STUBBORN]);
        let mut host = OtherHost::start("unguarded", plugin);
        liveness.lines(1).await;
        host.kill();
        eventually(|| !liveness.has_writer()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_guard_does_not_prevent_the_kill() {
    guarded(async {
        // `head` waits for the host's first byte, which follows the guard's first report.
        for stop in ["kill -STOP $PPID", "head -c 1 >&2; kill -STOP $PPID"] {
            let mut liveness = LivenessPipe::new();
            let plugin = script(
                &guarded_host(),
                &liveness,
                &[DAEMON, stop, "echo stopped >&9", STUBBORN],
            );
            let _promise = plugin.check_admission(&pin("a"));
            liveness.lines(2).await;
            plugin.close(Duration::ZERO).await;
            assert!(!liveness.has_writer());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_of_the_hosts_group_reaches_neither_guard_nor_plugin() {
    guarded(async {
        for kind in ["guarded", "unguarded"] {
            let mut host = OtherHost::start(kind, [native("conformance-fixture")]);
            let mut line = String::new();
            host.stdout
                .read_line(&mut line)
                .expect("the host prints a line");
            assert_eq!(line, "admitted\n");
            let group = Pid::from_child(&host.process);
            kill_process_group(group, Signal::INT).expect("it is there");
            let mut rest = String::new();
            host.stdout
                .read_to_string(&mut rest)
                .expect("the host prints a line");
            assert_eq!(rest, "admitted\nterminated with 0 exit code\n", "{kind}");
            host.process.wait().expect("it is ours");
        }
    })
    .await;
}
