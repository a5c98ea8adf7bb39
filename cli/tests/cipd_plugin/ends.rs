//! When `admit cipd-plugin` exits, no process of the policy is left.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use conformance::liveness_pipe::LivenessPipe;
use conformance::modes::native;
use conformance::{
    ErrorKind, Exit, GRACE, NativeCommand, PluginState, Wire, eventually, host, pin,
};
use rustix::process::{Pid, Signal, kill_process};

use super::forwarding::{PolicyKind, admit, argv, outcome, over_both_wires};

/// Returns `admit cipd-plugin`, run by a shell that writes its process ID to the pipe.
/// Both it and the policy have the pipe open; the policy opens it itself.
fn forward_with_pipe(wire: Wire, liveness: &LivenessPipe, policy: &[&str]) -> NativeCommand {
    let policy = liveness.script(policy);
    let mut command: Vec<OsString> = liveness.script(&["echo $$ >&9", "exec \"$@\""]).into();
    command.extend(argv(&[], &policy));
    NativeCommand::new(command).wire(wire)
}

async fn pid(liveness: &mut LivenessPipe) -> Pid {
    let lines = liveness.lines(1).await;
    Pid::from_raw(lines[0].parse().unwrap()).unwrap()
}

fn fixture(argument: &str) -> String {
    let path = native("conformance-fixture");
    format!("exec {} {argument}", path.display())
}

over_both_wires! {
    async fn the_end_of_stdin_closes_admit_and_the_policy(wire: Wire) {
        let mut liveness = LivenessPipe::new();
        let daemon = "setsid sh -c 'sleep 1000 & echo up >&9'";
        let source = forward_with_pipe(wire, &liveness, &[daemon, &fixture("")]);
        let plugin = host().plugin(source);
        assert!(
            outcome(&plugin.check_admission(&pin("allow/a")))
                .await
                .is_none()
        );
        assert_eq!(liveness.lines(2).await[1], "up");
        let pending = plugin.check_admission(&pin("hang"));
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert_eq!(outcome(&pending).await.unwrap().kind, ErrorKind::Aborted);
        // The guard killed the policy's descendants before `admit` exited.
        assert!(!liveness.has_writer());
    }

    async fn a_stubborn_policy_is_killed_before_the_client_would_kill_admit(wire: Wire) {
        let mut liveness = LivenessPipe::new();
        let source = forward_with_pipe(wire, &liveness, &[&fixture("stubborn")]);
        let plugin = host().plugin(source);
        let _check = plugin.check_admission(&pin("a"));
        pid(&mut liveness).await;
        eventually(|| plugin.state() == PluginState::Running).await;
        // If the client had killed `admit`, this would be `KilledByHost`.
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert!(!liveness.has_writer());
    }

    async fn sigint_does_not_stop_admit(wire: Wire) {
        let mut liveness = LivenessPipe::new();
        let plugin = host().plugin(forward_with_pipe(wire, &liveness, &[&fixture("")]));
        assert!(
            outcome(&plugin.check_admission(&pin("allow/a")))
                .await
                .is_none()
        );
        let admit = pid(&mut liveness).await;
        for n in 0..3 {
            kill_process(admit, Signal::INT).unwrap();
            let check = plugin.check_admission(&pin(&format!("deny/{n}")));
            assert_eq!(outcome(&check).await.unwrap().kind, ErrorKind::Denied);
        }
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn killing_admit_kills_the_policy(wire: Wire) {
        for (signal, words) in [(Signal::TERM, "terminated"), (Signal::KILL, "killed")] {
            let mut liveness = LivenessPipe::new();
            let daemon = "setsid sh -c 'sleep 1000 & echo up >&9'";
            let source = forward_with_pipe(wire, &liveness, &[daemon, &fixture("stubborn")]);
            let plugin = host().plugin(source);
            let check = plugin.check_admission(&pin("a"));
            let admit = pid(&mut liveness).await;
            liveness.lines(2).await;
            kill_process(admit, signal).unwrap();
            let outcome = outcome(&check).await.unwrap();
            assert_eq!(
                outcome.message,
                format!("the admission plugin terminated: signal: {words}")
            );
            eventually(|| !liveness.has_writer()).await;
            plugin.close(GRACE).await;
        }
    }
}

#[test]
fn the_policy_is_not_started_without_a_check() {
    let run = Command::new(admit())
        .args(["cipd-plugin", "--", "/does/not/exist"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    assert!(run.stderr.is_empty() && run.stdout.is_empty(), "{run:?}");
}

over_both_wires! {
    async fn a_component_is_closed_too(wire: Wire) {
        let plugin = host().plugin(PolicyKind::Component.forwarded(wire, "conformance-fixture", &[]),
        );
        assert!(
            outcome(&plugin.check_admission(&pin("allow/a")))
                .await
                .is_none()
        );
        let pending = plugin.check_admission(&pin("spin"));
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert_eq!(outcome(&pending).await.unwrap().kind, ErrorKind::Aborted);
    }
}
