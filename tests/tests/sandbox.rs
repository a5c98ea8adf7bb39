//! The sandbox of a component, and its limits.

use std::time::Duration;

use admission_host::{Code, Component, ErrorKind, Exit};
use conformance::logs::Lines;
use conformance::modes::fixture_component;
use conformance::named::Named;
use conformance::{GRACE, Mode, PluginState, error_of, eventually, guarded, host, pin};

async fn denial(package: &str) -> String {
    let plugin = host().plugin(fixture_component(""));
    let error = error_of(&plugin.check_admission(&pin(package))).await;
    assert_eq!(error.code(), Some(Code::FAILED_PRECONDITION), "{error}");
    plugin.close(GRACE).await;
    error.to_string()
}

/// Returns the kind and the text of the error when a component judges `package`.
async fn end_of(component: Component, package: &str) -> (ErrorKind, String) {
    let plugin = host().plugin(component);
    let error = error_of(&plugin.check_admission(&pin(package))).await;
    plugin.close(GRACE).await;
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn a_component_finds_no_file_no_variable_and_no_network() {
    guarded(async {
        assert_eq!(denial("environment").await, "");
        let files = denial("files").await;
        assert!(!files.starts_with("found"), "{files}");
        assert_eq!(denial("network").await, "PermissionDenied");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spinning_component_is_killed_at_the_end_of_the_grace() {
    guarded(async {
        let lines = Lines::collect();
        let fixture = Named::new(Mode::Component, "spinning", "");
        let plugin = host().plugin(fixture.source.clone());
        let spinning = plugin.check_admission(&pin("spin"));
        lines.wait_for("spinning", "the fixture spins").await;
        assert_eq!(
            plugin.close(Duration::from_millis(50)).await,
            Exit::KilledByHost
        );
        assert_eq!(error_of(&spinning).await.kind(), ErrorKind::Aborted);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_exceeds_its_cpu_limit_is_ended() {
    guarded(async {
        let component = fixture_component("").cpu_limit(Duration::from_millis(100));
        let (kind, text) = end_of(component, "spin").await;
        assert_eq!(kind, ErrorKind::Resource);
        assert_eq!(
            text,
            "the admission plugin terminated: trap: the CPU limit of 100ms without a yield to the host was exceeded"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_exceeds_its_memory_limit_is_ended() {
    guarded(async {
        let (kind, text) = end_of(fixture_component(""), "grow").await;
        assert_eq!(kind, ErrorKind::Resource);
        assert_eq!(
            text,
            "the admission plugin terminated: trap: the memory limit of 64 MiB was exceeded"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panicking_component_settles_that_check_and_traps() {
    guarded(async {
        let plugin = host().plugin(fixture_component(""));
        let other = plugin.check_admission(&pin("hang"));
        let panicking = plugin.check_admission(&pin("panic"));
        let error = error_of(&panicking).await;
        assert_eq!(error.code(), Some(Code::ABORTED));
        assert_eq!(
            error.to_string(),
            "panic in the admission handler: the fixture panics"
        );
        let error = error_of(&other).await;
        assert_eq!(error.kind(), ErrorKind::Trap);
        assert!(
            error.stderr_tail().contains("the fixture panics"),
            "{}",
            error.stderr_tail()
        );
        eventually(|| plugin.state() == PluginState::Broken).await;
        plugin.close(GRACE).await;
    })
    .await;
}

#[tokio::test]
async fn text_on_a_components_stdout_is_quoted_with_a_hint() {
    guarded(async {
        let plugin = host().plugin(fixture_component(""));
        let error = error_of(&plugin.check_admission(&pin("print"))).await;
        plugin.close(GRACE).await;
        let text = error.to_string();
        assert!(text.contains("a stray line"), "{text}");
        assert!(text.contains("stdout is the wire: log to stderr"), "{text}");
    })
    .await;
}
