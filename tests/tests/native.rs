//! What holds for subprocesses alone.

use admission_host::{Code, NativeCommand};
use conformance::modes::native;
use conformance::{GRACE, Mode, Plugin, error_of, guarded, host, pin};

async fn denial(command: NativeCommand, order: &str) -> String {
    let plugin = Plugin::new(&host(), command);
    let error = error_of(&plugin.check_admission(&pin(order))).await;
    plugin.close(GRACE).await;
    error.to_string()
}

fn fixture() -> NativeCommand {
    NativeCommand::new([native("conformance-fixture")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_one_checks_failure_and_the_plugin_lives_on() {
    guarded(async {
        let plugin = Plugin::new(&host(), Mode::Native.fixture(""));
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
async fn what_a_policy_prints_does_not_reach_the_frames() {
    guarded(async {
        let plugin = Plugin::new(&host(), Mode::Native.fixture(""));
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
async fn a_plugin_sees_what_was_added_to_its_environment_and_no_secrets() {
    guarded(async {
        let seen = denial(fixture().env("CONFORMANCE", "1"), "environment").await;
        let names: Vec<_> = seen.split(' ').collect();
        assert!(names.contains(&"CONFORMANCE"));
        let allowed = ["CONFORMANCE", "HOME", "LANG", "PATH", "TZ"];
        assert!(names.iter().all(|name| allowed.contains(name)), "{seen}");
        // Cargo sets this one for tests.
        let all = denial(fixture().inherit_environment(), "environment").await;
        assert!(all.contains("CARGO_MANIFEST_DIR"), "{all}");
    })
    .await;
}

#[tokio::test]
async fn a_plugin_inherits_no_descriptor_but_its_pipes() {
    guarded(async {
        // Three pipes, and what the SDK and the test itself open: counted by a program
        // that opens nothing else.
        let command = NativeCommand::new(["sh", "-c", "ls /proc/self/fd >&2; exit 9"]);
        let leak = tempfile::tempfile().expect("a temporary file");
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).expect("cleared");
        let plugin = Plugin::new(&host(), command);
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        // `ls` itself has the folder open as 3.
        assert_eq!(
            error.stderr_tail().split_whitespace().collect::<Vec<_>>(),
            ["0", "1", "2", "3"]
        );
        plugin.close(GRACE).await;
    })
    .await;
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipes_delays_nothing() {
    guarded(async {
        let command = NativeCommand::new(["sh", "-c", "sleep 1000 & echo gone >&2; exit 6"]);
        let plugin = Plugin::new(&host(), command);
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

#[tokio::test]
async fn an_output_that_ends_is_the_end_of_a_plugin_that_lives_on() {
    guarded(async {
        let command = NativeCommand::new(["sh", "-c", "exec >&-; cat >/dev/null"]);
        let plugin = Plugin::new(&host(), command);
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(error.to_string(), "the admission plugin closed its output");
        plugin.close(GRACE).await;
    })
    .await;
}

#[tokio::test]
async fn an_empty_command_is_an_error_of_the_check() {
    guarded(async {
        let plugin = Plugin::new(&host(), NativeCommand::new(Vec::<String>::new()));
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(error.to_string(), "need at least one argument (the executable to start)");
        let plugin = Plugin::new(&host(), NativeCommand::new(["no-such-program-anywhere"]));
        let error = error_of(&plugin.check_admission(&pin("a"))).await;
        assert_eq!(
            error.to_string(),
            r#"failed to launch the plugin: exec: "no-such-program-anywhere": executable file not found in $PATH"#
        );
    })
    .await;
}
