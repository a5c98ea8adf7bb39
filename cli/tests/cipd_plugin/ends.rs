//! How `admit cipd-plugin` ends, and what ends with it.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use conformance::lifeline::Lifeline;
use conformance::modes::native;
use conformance::{
    ErrorKind, Exit, GRACE, NativeCommand, Plugin, PluginState, Wire, eventually, host, pin,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::relay::{Inner, admit, argv, over_both_wires, told};

/// Returns a plugin that is `admit cipd-plugin`, run by a shell that writes its process ID
/// to the lifeline; both it and this command, which has to open it itself, hold that.
fn held(wire: Wire, lifeline: &Lifeline, inner: &[&str]) -> NativeCommand {
    let inner = lifeline.script(inner);
    let mut command: Vec<OsString> = lifeline.script(&["echo $$ >&9", "exec \"$@\""]).into();
    command.extend(argv(&[], &inner));
    NativeCommand::new(command).wire(wire)
}

async fn pid(lifeline: &mut Lifeline) -> Pid {
    let lines = lifeline.lines(1).await;
    Pid::from_raw(lines[0].parse().unwrap()).unwrap()
}

fn fixture(argument: &str) -> String {
    let path = native("conformance-fixture");
    format!("exec {} {argument}", path.display())
}

over_both_wires! {
    async fn the_end_of_stdin_ends_everything(wire: Wire) {
        let mut lifeline = Lifeline::new();
        let runaway = "setsid sh -c 'sleep 1000 & echo up >&9'";
        let source = held(wire, &lifeline, &[runaway, &fixture("")]);
        let plugin = host().plugin(source);
        assert!(
            told(&plugin.check_admission(&pin("allow/a")))
                .await
                .is_none()
        );
        assert_eq!(lifeline.lines(2).await[1], "up");
        let pending = plugin.check_admission(&pin("hang"));
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert_eq!(told(&pending).await.unwrap().kind, ErrorKind::Aborted);
        // The guard of the inner plugin has seen to its descendants before `admit` ended.
        assert!(!lifeline.is_held());
    }

    async fn a_plugin_that_does_not_end_is_killed_before_the_client_would_kill(wire: Wire) {
        let mut lifeline = Lifeline::new();
        let source = held(wire, &lifeline, &[&fixture("stubborn")]);
        let plugin = host().plugin(source);
        let _check = plugin.check_admission(&pin("a"));
        pid(&mut lifeline).await;
        eventually(|| plugin.state() == PluginState::Running).await;
        // In the grace of a client; a kill by the client would be another exit.
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert!(!lifeline.is_held());
    }

    async fn an_interrupt_is_for_the_client(wire: Wire) {
        let mut lifeline = Lifeline::new();
        let plugin = host().plugin(held(wire, &lifeline, &[&fixture("")]));
        assert!(
            told(&plugin.check_admission(&pin("allow/a")))
                .await
                .is_none()
        );
        let admit = pid(&mut lifeline).await;
        for n in 0..3 {
            kill_process(admit, Signal::INT).unwrap();
            let check = plugin.check_admission(&pin(&format!("deny/{n}")));
            assert_eq!(told(&check).await.unwrap().kind, ErrorKind::Denied);
        }
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
    }

    async fn what_kills_it_kills_the_plugin_too(wire: Wire) {
        for (signal, words) in [(Signal::TERM, "terminated"), (Signal::KILL, "killed")] {
            let mut lifeline = Lifeline::new();
            let runaway = "setsid sh -c 'sleep 1000 & echo up >&9'";
            let source = held(wire, &lifeline, &[runaway, &fixture("stubborn")]);
            let plugin = host().plugin(source);
            let check = plugin.check_admission(&pin("a"));
            let admit = pid(&mut lifeline).await;
            lifeline.lines(2).await;
            kill_process(admit, signal).unwrap();
            let told = told(&check).await.unwrap();
            assert_eq!(
                told.message,
                format!("the admission plugin terminated: signal: {words}")
            );
            eventually(|| !lifeline.is_held()).await;
            plugin.close(GRACE).await;
        }
    }
}

#[test]
fn a_client_that_asks_nothing_starts_nothing() {
    let run = Command::new(admit())
        .args(["cipd-plugin", "--", "/does/not/exist"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    assert!(run.stderr.is_empty() && run.stdout.is_empty(), "{run:?}");
}

over_both_wires! {
    async fn a_component_ends_with_it_too(wire: Wire) {
        let plugin = host().plugin(Inner::Component.relayed(wire, "conformance-fixture", &[]),
        );
        assert!(
            told(&plugin.check_admission(&pin("allow/a")))
                .await
                .is_none()
        );
        let pending = plugin.check_admission(&pin("spin"));
        assert_eq!(plugin.close(GRACE).await, Exit::Success);
        assert_eq!(told(&pending).await.unwrap().kind, ErrorKind::Aborted);
    }
}
