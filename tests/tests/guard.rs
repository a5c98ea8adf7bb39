//! A guard does not change how a plugin runs or fails, and a plugin cannot stop its guard from
//! working.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use admission_host::{CheckError, ErrorKind, Exit, NativeCommand};
use conformance::liveness_pipe::LivenessPipe;
use conformance::process::{children_of, is_running};
use conformance::{GRACE, Host, Plugin, error_of, eventually, guarded, host, options, pin};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};

const GUARD: &str = env!("CARGO_BIN_EXE_guard");

/// Exits at the end of stdin.
const POLITE: &str = "exec cat >/dev/null";

/// Does not exit by itself.
const STUBBORN: &str = "exec sleep 1000";

fn guarded_host() -> Host {
    Host::new(options().guard(GUARD, [""; 0]))
}

fn script(liveness: &LivenessPipe, commands: &[&str]) -> Plugin {
    guarded_host().plugin(NativeCommand::new(liveness.script(commands)))
}

async fn error_from(host: &Host, argv: &[&str]) -> CheckError {
    let plugin = host.plugin(NativeCommand::new(argv));
    let error = error_of(&plugin.check_admission(&pin("a"))).await;
    plugin.close(GRACE).await;
    error
}

/// Returns the causes of an error, the root cause last.
fn error_chain(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(error.source(), |error| error.source())
        .map(ToString::to_string)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_is_described_in_the_words_of_the_reference() {
    guarded(async {
        for (script, words) in [
            ("exit 0", "terminated with 0 exit code"),
            ("exit 7", "exit status 7"),
            ("kill -KILL $$", "signal: killed"),
            ("kill -TERM $$", "signal: terminated"),
            ("ulimit -c 0; kill -ABRT $$", "signal: aborted"),
        ] {
            for host in [host(), guarded_host()] {
                let error = error_from(&host, &["sh", "-c", script]).await;
                assert_eq!(
                    error.to_string(),
                    format!(
                        "the admission plugin terminated before making ListAdmissions RPC: {words}"
                    )
                );
                assert_eq!(error.kind(), ErrorKind::Crash);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_holds_the_pipes_does_not_delay_the_error() {
    guarded(async {
        let script = "setsid sleep 1000 & sleep 1000 & echo gone >&2; exit 6";
        let error = error_from(&guarded_host(), &["sh", "-c", script]).await;
        assert_eq!(
            error.to_string(),
            "the admission plugin terminated before making ListAdmissions RPC: exit status 6"
        );
        assert_eq!(error.stderr_tail(), "gone");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_keeps_no_copy_of_the_pipes() {
    guarded(async {
        let script = "exec >&-; cat >/dev/null";
        let error = error_from(&guarded_host(), &["sh", "-c", script]).await;
        assert_eq!(error.to_string(), "the admission plugin closed its output");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_are_reaped_while_the_plugin_runs() {
    guarded(async {
        let mut liveness = LivenessPipe::new();
        let orphans = "for n in 1 2 3 4 5 6 7 8 9; do sh -c 'true & true & true &'; done";
        let plugin = script(&liveness, &[orphans, "echo $PPID >&9", STUBBORN]);
        let _promise = plugin.check_admission(&pin("a"));
        let guard = liveness.lines(1).await[0].parse().expect("a pid");
        eventually(|| children_of(guard).len() == 1).await;
        plugin.close(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_ignores_sigchld_gets_the_exit_of_a_guarded_plugin() {
    guarded(async {
        let script = r#"trap '' CHLD; exec "$0" guarded sh -c 'exit 7'"#;
        let mut host = Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_host")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let mut stdout = BufReader::new(host.stdout.take().expect("stdout is piped"));
        stdout.read_line(&mut line).expect("the host prints a line");
        assert_eq!(
            line,
            "the admission plugin terminated before making ListAdmissions RPC: exit status 7\n"
        );
        host.kill().expect("it is ours");
        host.wait().expect("it is ours");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_other_than_sigkill_do_not_end_a_guard() {
    guarded(async {
        let mut liveness = LivenessPipe::new();
        let hostile = "for s in HUP INT QUIT TERM USR1 USR2 PIPE ALRM TSTP TTIN TTOU; do kill -$s $PPID; done";
        let plugin = script(&liveness, &[hostile, "echo up >&9", POLITE]);
        let _promise = plugin.check_admission(&pin("a"));
        liveness.lines(1).await;
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_exit_is_reported_with_its_status() {
    guarded(async {
        let mut liveness = LivenessPipe::new();
        // `head` waits for the host's first byte, which follows the guard's first report.
        let commands = [
            "head -c 1 >&2; echo $PPID $$ >&9",
            "kill -STOP $PPID; exit 3",
        ];
        let plugin = script(&liveness, &commands);
        let promise = plugin.check_admission(&pin("a"));
        let pids = liveness.lines(1).await.remove(0);
        let (guard, plugin) = pids.split_once(' ').expect("two numbers");
        let (guard, plugin) = (
            guard.parse().expect("a pid"),
            plugin.parse().expect("a pid"),
        );
        eventually(|| !is_running(plugin)).await;
        // Longer than a plugin may run after its output has ended.
        let early = tokio::time::timeout(Duration::from_millis(300), promise.wait()).await;
        assert!(early.is_err(), "{early:?}");
        kill_process(Pid::from_raw(guard).expect("a pid"), Signal::CONT).expect("it is there");
        assert_eq!(
            error_of(&promise).await.to_string(),
            "the admission plugin terminated before making ListAdmissions RPC: exit status 3"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_the_guard_is_a_crash_and_kills_the_plugin() {
    guarded(async {
        let mut liveness = LivenessPipe::new();
        // `head` waits for the host's first byte, which follows the guard's first report.
        let commands = ["head -c 1 >&2; echo $PPID >&9", STUBBORN];
        let plugin = script(&liveness, &commands);
        let promise = plugin.check_admission(&pin("a"));
        let guard = liveness.lines(1).await[0].parse().expect("a pid");
        assert_ne!(guard, rustix::process::getpid().as_raw_pid());
        let guard = Pid::from_raw(guard).expect("a pid");
        kill_process(guard, Signal::KILL).expect("it is there");
        let error = error_of(&promise).await;
        assert_eq!(
            error.to_string(),
            "the admission plugin terminated before making ListAdmissions RPC: its guard died"
        );
        assert_eq!(error.kind(), ErrorKind::Crash);
        eventually(|| !liveness.has_writer()).await;
        plugin.close(GRACE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guarded_plugin_has_the_same_process_attributes_as_an_unguarded_one() {
    guarded(async {
        // Prints arguments, environment, working directory, descriptors, limits and signals, and
        // whether the plugin leads its group in the same session.
        // stdout stays open until the plugin exits: a plugin that closes it is killed after a while.
        let look = r#"
            echo "$0" "$@" >&2; env >&2; pwd >&2; ls /proc/self/fd >&2; umask >&2; ulimit -a >&2
            read -r pid name state parent group session rest < /proc/$$/stat
            [ $pid = $group ] && echo "leads its group in session $session" >&2
            grep -E '^(Sig(Blk|Ign)|NoNewPrivs|Groups)' /proc/self/status >&2"#;
        let argv = ["sh", "-c", look, "--guard", "", "two words", "\u{fffd}"];
        let unguarded = error_from(&host(), &argv).await;
        let guarded = error_from(&guarded_host(), &argv).await;
        assert_eq!(guarded.stderr_tail(), unguarded.stderr_tail());
        assert!(guarded.stderr_tail().contains("leads its group"));
        assert!(guarded.stderr_tail().contains("\n0\n1\n2\n3\n"));
        assert!(guarded.stderr_tail().contains("SigBlk:\\t0000000000000000"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launch_error_is_the_same_with_a_guard() {
    guarded(async {
        let long = "x".repeat(1 << 20);
        for argv in [
            &["/does/not/exist"][..],
            &["no-such-program-anywhere"],
            &["/etc/passwd"],
            &["/"],
            &[""],
            &["sh", "nul\0byte"],
            &["sh", &long],
        ] {
            let unguarded = error_from(&host(), argv).await;
            let guarded = error_from(&guarded_host(), argv).await;
            assert_eq!(guarded.to_string(), unguarded.to_string());
            assert_eq!(guarded.kind(), ErrorKind::Launch);
            assert_eq!(error_chain(&guarded), error_chain(&unguarded));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_not_a_guard_is_an_error_of_the_check() {
    guarded(async {
        for (program, cause) in [
            ("/does/not/exist", "No such file or directory (os error 2)"),
            ("true", "it exited, or is not a guard of this version"),
        ] {
            let host = Host::new(options().guard(program, [""; 0]));
            let error = error_from(&host, &["sh", "-c", "echo started >&2"]).await;
            assert_eq!(
                error.to_string(),
                format!("failed to launch the plugin: its guard `{program}` does not work")
            );
            assert_eq!(error_chain(&error).last().map(String::as_str), Some(cause));
            assert_eq!(error.kind(), ErrorKind::Launch);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guard_and_plugin_inherit_no_descriptor_of_the_host() {
    guarded(async {
        let (mut open, mut started) = (LivenessPipe::new(), LivenessPipe::new());
        let flags = OFlags::WRONLY;
        let leak = rustix::fs::open(open.path(), flags, Mode::empty()).expect("it is there");
        let plugin = script(&started, &["echo up >&9", STUBBORN]);
        let _promise = plugin.check_admission(&pin("a"));
        started.lines(1).await;
        drop(leak);
        eventually(|| !open.has_writer()).await;
        plugin.close(Duration::ZERO).await;
    })
    .await;
}
