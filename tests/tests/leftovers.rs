//! A plugin leaves no process, task, thread or descriptor, and a missing guard is reported once.
//! This program has only one test, because both are facts of the whole process.

use std::time::Duration;

use admission_host::Exit;
use conformance::logs::Lines;
use conformance::process::Holdings;
use conformance::{GRACE, Host, Mode, PluginState, eventually, guarded, options, pin};
use tokio::runtime::Handle;
use tracing::Level;

const CYCLES: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    holdings: Holdings,
    tasks: usize,
}

impl Left {
    fn now() -> Self {
        Self {
            holdings: Holdings::now(),
            tasks: Handle::current().metrics().num_alive_tasks(),
        }
    }
}

/// Creates a host, with a guard if the mode is `Guarded`.
fn host_for(mode: Mode) -> Host {
    Host::new(match mode {
        Mode::Guarded => options().guard(env!("CARGO_BIN_EXE_guard"), [""; 0]),
        Mode::Native | Mode::Grpc | Mode::Component => options(),
    })
}

/// Runs plugins, and ends each in another way.
async fn cycle(host: &Host, mode: Mode) {
    let honest = host.plugin(mode.fixture(""));
    honest
        .check_admission(&pin("allow/a"))
        .wait()
        .await
        .expect("admitted");
    let pending = honest.check_admission(&pin("hang"));
    assert_eq!(honest.close(GRACE).await, Exit::Success);
    assert!(pending.is_settled());

    let crashing = host.plugin(mode.fixture("exit-3"));
    crashing
        .check_admission(&pin("a"))
        .wait()
        .await
        .expect_err("it has crashed");

    let stuck = host.plugin(mode.fixture("stubborn"));
    let pending = stuck.check_admission(&pin("a"));
    eventually(|| stuck.state() == PluginState::Running).await;
    assert_eq!(stuck.close(Duration::ZERO).await, Exit::KilledByHost);
    assert!(pending.is_settled());

    let dropped = host.plugin(mode.fixture(""));
    dropped
        .check_admission(&pin("allow/a"))
        .wait()
        .await
        .expect("admitted");

    let closed = host_for(mode);
    let plugin = closed.plugin(mode.fixture(""));
    plugin
        .check_admission(&pin("allow/a"))
        .wait()
        .await
        .expect("admitted");
    closed.close(GRACE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_process_task_thread_or_descriptor_is_left() {
    let lines = Lines::collect();
    guarded(async {
        let all = Mode::ALL.map(|mode| (host_for(mode), mode));
        for (host, mode) in &all {
            cycle(host, *mode).await;
        }
        let baseline = wait_for_stable_counts().await;
        for (host, mode) in &all {
            for _ in 0..CYCLES {
                cycle(host, *mode).await;
            }
        }
        eventually(|| is_within(&Left::now(), &baseline)).await;
        assert_warned_once_of_the_missing_guard(lines);
    })
    .await;
}

fn assert_warned_once_of_the_missing_guard(lines: &Lines) {
    let mut warnings = lines.of_plugin("");
    warnings.retain(|line| line.message.starts_with("no guard is configured"));
    let [line] = &warnings[..] else {
        panic!("not once: {warnings:?}");
    };
    assert_eq!(line.level, Level::WARN);
    assert_eq!(
        line.message,
        "no guard is configured: a process that a plugin starts may outlive it in another \
         process group"
    );
}

/// Waits until two counts in a row are equal and without a child: the epoch ticker and
/// dropped plugins take a moment to end.
async fn wait_for_stable_counts() -> Left {
    let mut before = Left::now();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = Left::now();
        if now == before && now.holdings.children == 0 {
            return now;
        }
        before = now;
    }
}

fn is_within(now: &Left, baseline: &Left) -> bool {
    now.holdings.children == 0
        && now.tasks <= baseline.tasks
        && now.holdings.threads <= baseline.holdings.threads
        && now.holdings.descriptors <= baseline.holdings.descriptors
}
