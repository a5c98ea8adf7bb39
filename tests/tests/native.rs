//! Behaviour that only native plugins have.

use std::os::unix::fs::symlink;
use std::time::Duration;

use admission_host::{Code, ErrorKind, Exit, NativeCommand, PluginOptions};
use conformance::logs::Lines;
use conformance::modes::native;
use conformance::{GRACE, Mode, Plugin, error_of, eventually, guarded, host, pin, process};
use tempfile::TempDir;

async fn denial(command: NativeCommand, package: &str) -> String {
    let plugin = host().plugin(command);
    let error = error_of(&plugin.check_admission(&pin(package))).await;
    plugin.close(GRACE).await;
    error.to_string()
}

fn fixture() -> NativeCommand {
    NativeCommand::new([native("conformance-fixture")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_one_check_and_the_plugin_keeps_running() {
    guarded(async {
        let plugin = host().plugin(Mode::Native.fixture(""));
        let error = error_of(&plugin.check_admission(&pin("panic"))).await;
        assert_eq!(error.code(), Some(Code::ABORTED));
        assert_eq!(
            error.to_string(),
            "panic in the admission handler: the fixture panics"
        );
        plugin
            .check_admission(&pin("allow/a"))
            .wait()
            .await
            .expect("admitted");
        plugin.close(GRACE).await;
    })
    .await;
}

#[tokio::test]
async fn prints_of_a_policy_do_not_reach_the_wire() {
    guarded(async {
        let plugin = host().plugin(Mode::Native.fixture(""));
        plugin
            .check_admission(&pin("print"))
            .wait()
            .await
            .expect("admitted");
        plugin.close(GRACE).await;
    })
    .await;
}

#[tokio::test]
async fn a_plugin_gets_four_variables_of_the_host_and_the_added_ones() {
    guarded(async {
        let seen = denial(fixture().env("CONFORMANCE", "1"), "environment").await;
        let names: Vec<_> = seen.split(' ').collect();
        assert!(names.contains(&"CONFORMANCE"));
        let allowed = ["CONFORMANCE", "HOME", "LANG", "PATH", "TZ"];
        assert!(names.iter().all(|name| allowed.contains(name)), "{seen}");
        // Cargo sets this variable for tests.
        let all = denial(fixture().inherit_environment(), "environment").await;
        assert!(all.contains("CARGO_MANIFEST_DIR"), "{all}");
    })
    .await;
}

#[tokio::test]
async fn a_plugin_inherits_no_descriptor_but_its_pipes() {
    guarded(async {
        // The shell lists the descriptors, because the SDK opens some of its own.
        let command = NativeCommand::new(["sh", "-c", "ls /proc/self/fd >&2; exit 9"]);
        let leak = tempfile::tempfile().expect("a temporary file");
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).expect("cleared");
        let plugin = host().plugin(command);
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        // `ls` has the folder open as 3.
        assert_eq!(
            error.stderr_tail().split_whitespace().collect::<Vec<_>>(),
            ["0", "1", "2", "3"]
        );
        plugin.close(GRACE).await;
    })
    .await;
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipes_does_not_delay_the_error() {
    guarded(async {
        let command = NativeCommand::new(["sh", "-c", "sleep 1000 & echo gone >&2; exit 6"]);
        let plugin = host().plugin(command);
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(
            error.to_string(),
            "the admission plugin terminated before making ListAdmissions RPC: exit status 6"
        );
        assert_eq!(error.stderr_tail(), "gone");
        plugin.close(GRACE).await;
    })
    .await;
}

/// Returns what a shell script writes to stderr before it exits.
async fn stderr_of(command: NativeCommand) -> String {
    let plugin = host().plugin(command);
    let error = error_of(&plugin.check_admission(&pin("a"))).await;
    plugin.close(GRACE).await;
    error.stderr_tail().to_owned()
}

#[tokio::test]
async fn arguments_are_passed_unchanged() {
    guarded(async {
        let script = r#"printf '[%s]' "$@" >&2; exit 9"#;
        let argv = ["sh", "-c", script, "sh", "a b", "", "*", "$HOME", "'\""];
        assert_eq!(
            stderr_of(NativeCommand::new(argv)).await,
            r#"[a b][][*][$HOME]['"]"#
        );
    })
    .await;
}

#[tokio::test]
async fn a_plugin_runs_in_the_working_directory_of_its_host() {
    guarded(async {
        let here = std::env::current_dir().expect("a working directory");
        assert_eq!(
            stderr_of(NativeCommand::new(["sh", "-c", "pwd -P >&2; exit 9"])).await,
            here.to_str().expect("plain text")
        );
    })
    .await;
}

#[tokio::test]
async fn a_plugin_leads_a_process_group_of_its_own() {
    guarded(async {
        // The fifth field is the group, because the name, the second field, has no blank here.
        let script = r#"read -r line < /proc/$$/stat; set -- $line; echo "$1 $5" >&2; exit 9"#;
        let stderr = stderr_of(NativeCommand::new(["sh", "-c", script])).await;
        let (process, group) = stderr.split_once(' ').expect("two numbers");
        assert_eq!(process, group);
    })
    .await;
}

/// A shell script as a plugin with a name, by which its log lines are found.
struct Script {
    plugin: Plugin,
    name: &'static str,
    _folder: TempDir,
}

impl Script {
    fn start(name: &'static str, script: &str) -> Self {
        // The collector must start before the first line.
        Lines::collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let shell = folder.path().join(name);
        symlink("/bin/sh", &shell).expect("the folder takes it");
        let argv = [shell.as_os_str(), "-c".as_ref(), script.as_ref()];
        let plugin = host().plugin(NativeCommand::new(argv));
        let _promise = plugin.check_admission(&pin("a"));
        Self {
            plugin,
            name,
            _folder: folder,
        }
    }

    /// Waits for a number on stderr.
    async fn number(&self) -> u32 {
        let mut number = None;
        eventually(|| {
            let lines = Lines::collect().of_plugin(self.name);
            number = lines.iter().find_map(|line| line.message.parse().ok());
            number.is_some()
        })
        .await;
        number.expect("`eventually` has found it")
    }
}

#[tokio::test]
async fn a_grandchild_dies_with_the_plugin() {
    guarded(async {
        let ends = [
            ("crashing-parent", "exit 6"),
            ("closed-parent", "cat > /dev/null"),
        ];
        for (name, end) in ends {
            let script = Script::start(name, &format!("sleep 1000 & echo $! >&2; {end}"));
            let grandchild = script.number().await;
            script.plugin.close(GRACE).await;
            eventually(|| !process::is_running(grandchild)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_plugin_that_closes_its_output_gets_the_end_of_stdin() {
    guarded(async {
        let name = "silenced";
        let script = Script::start(name, "exec >&-; cat > /dev/null; echo ended >&2");
        Lines::collect().wait_for(name, "ended").await;
        drop(script);
    })
    .await;
}

#[tokio::test]
async fn a_stopped_plugin_times_out_and_is_killed() {
    guarded(async {
        let options = PluginOptions::default().connect_timeout(Duration::from_millis(100));
        let command = NativeCommand::new(["sh", "-c", "kill -STOP $$"]);
        let plugin = host().plugin_with_options(command, options);
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(error.kind(), ErrorKind::ConnectTimeout);
        assert_eq!(plugin.close(Duration::ZERO).await, Exit::KilledByHost);
    })
    .await;
}

#[tokio::test]
async fn a_plugin_without_a_command_has_an_empty_name() {
    let plugin = host().plugin(NativeCommand::new(Vec::<String>::new()));
    assert_eq!(plugin.name(), "");
    let plugin = host().plugin(NativeCommand::new(["/usr/bin/policy", "x"]));
    assert_eq!(plugin.name(), "policy");
}
