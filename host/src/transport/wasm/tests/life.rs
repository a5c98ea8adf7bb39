//! Tests of components that run, and of their exits.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::error_kind::ErrorKind;

/// Whether the task was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls once, and expects that the component goes on.
async fn poll_once(launched: &mut Launched) {
    poll_fn(|cx| {
        assert!(launched.process.poll_exit(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn the_result_of_run_is_the_exit() {
    assert_eq!(exit_of(running("i32.const 0")).await, Exit::Success);
    assert_eq!(
        exit_of(running("i32.const 1")).await,
        Exit::failed(ErrorKind::Crash, "exit status 1")
    );
}

#[tokio::test]
async fn the_argument_of_exit_is_the_exit() {
    let exiting = |status: u32| {
        wat(&format!(
            r#"(component
                (import "wasi:cli/exit@0.2.0" (instance $exit
                    (export "exit" (func (param "status" (result))))))
                (core func $exit (canon lower (func $exit "exit")))
                (core module $main
                    (import "env" "exit" (func $exit (param i32)))
                    (func (export "run") (result i32)
                        (call $exit (i32.const {status})) unreachable))
                (core instance $main (instantiate $main
                    (with "env" (instance (export "exit" (func $exit))))))
                (func $run (result (result)) (canon lift (core func $main "run")))
                (instance $command (export "run" (func $run)))
                (export "wasi:cli/run@0.2.0" (instance $command)))"#
        ))
    };
    assert_eq!(exit_of(exiting(0)).await, Exit::Success);
    assert_eq!(
        exit_of(exiting(1)).await,
        Exit::failed(ErrorKind::Crash, "exit status 1")
    );
}

#[tokio::test]
async fn a_trap_has_a_reason_and_writes_its_functions_to_stderr() {
    let component = Component::from_bytes(running("unreachable"));
    let (mut launched, stderr) = try_launch(component).await.unwrap();
    assert_eq!(
        ended(&mut launched).await,
        Exit::failed(
            ErrorKind::Trap,
            "trap: wasm `unreachable` instruction executed"
        )
    );
    assert!(stderr.tail().contains("policy"), "{}", stderr.tail());
}

#[tokio::test]
async fn a_backtrace_shows_readable_names_of_rust_functions() {
    let name = "_ZN6policy5check17h0123456789abcdefE";
    let fields = format!(r#"(func ${name} (export "run") (result i32) unreachable)"#);
    let component = Component::from_bytes(command("", &fields));
    let (mut launched, stderr) = try_launch(component).await.unwrap();
    ended(&mut launched).await;
    let tail = stderr.tail();
    assert!(tail.ends_with("!policy::check"), "{tail}");
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    let fields = r#"(func $f (export "run") (result i32) call $f)"#;
    assert_eq!(
        exit_of(command("", fields)).await,
        Exit::failed(ErrorKind::Trap, "trap: call stack exhausted")
    );
}

#[tokio::test]
async fn a_guest_echoes_its_stdin_and_exits_at_the_end_of_it() {
    let mut launched = launch(echo()).await;
    for round in 0..100_u32 {
        let sent = round.to_le_bytes();
        launched.stdin.write_all(&sent).await.unwrap();
        let mut received = [0; 4];
        tokio::select! {
            read = launched.stdout.read_exact(&mut received) => read.map(drop).unwrap(),
            exit = poll_fn(|cx| launched.process.poll_exit(cx)) => panic!("{exit}"),
        }
        assert_eq!(received, sent);
    }
    launched.stdin.shutdown().await.unwrap();
    assert_eq!(ended(&mut launched).await, Exit::Success);
    assert_eq!(launched.stdout.read(&mut [0; 9]).await.unwrap(), 0);
}

#[tokio::test]
async fn more_than_the_pipes_hold_gets_through_them() {
    let Launched {
        mut stdin,
        mut stdout,
        mut process,
    } = launch(echo()).await;
    let bytes: Vec<u8> = (0..=250).cycle().take(3 << 20).collect();
    let mut received = Vec::new();
    let write = async {
        stdin.write_all(&bytes).await.unwrap();
        drop(stdin);
    };
    let (_, read, exit) = tokio::join!(
        write,
        stdout.read_to_end(&mut received),
        poll_fn(|cx| process.poll_exit(cx)),
    );
    read.unwrap();
    assert_eq!(exit, Exit::Success);
    assert!(received == bytes);
}

#[tokio::test]
async fn output_from_before_the_kill_can_be_read_after_it() {
    let mut launched = launch(echo()).await;
    launched.stdin.write_all(b"verdict").await.unwrap();
    poll_once(&mut launched).await;
    launched.process.kill();
    assert_eq!(ended(&mut launched).await, Exit::KilledByHost);
    let mut rest = Vec::new();
    launched.stdout.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"verdict");
    let error = launched.stdin.write_all(b"more").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_guest_whose_stdout_is_dropped_finds_it_closed() {
    let Launched {
        mut stdin,
        stdout,
        mut process,
    } = launch(echo()).await;
    drop(stdout);
    stdin.write_all(b"hello").await.unwrap();
    assert_eq!(
        poll_fn(|cx| process.poll_exit(cx)).await,
        Exit::failed(ErrorKind::Crash, "exit status 1")
    );
}

#[tokio::test]
async fn a_spinning_guest_yields_to_the_session_and_can_be_killed() {
    let mut launched = launch(running("(loop (br 0)) unreachable")).await;
    poll_once(&mut launched).await;
    poll_once(&mut launched).await;
    launched.process.kill();
    assert_eq!(ended(&mut launched).await, Exit::KilledByHost);
}

#[tokio::test]
async fn a_guest_that_never_ran_can_be_killed() {
    let mut launched = launch(echo()).await;
    launched.process.kill();
    assert_eq!(ended(&mut launched).await, Exit::KilledByHost);
}

#[tokio::test]
async fn killing_wakes_the_task_that_waits_for_the_exit() {
    let mut launched = launch(echo()).await;
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let mut cx = Context::from_waker(&waker);
    assert!(launched.process.poll_exit(&mut cx).is_pending());
    assert!(!woken.0.load(Ordering::Relaxed));
    launched.process.kill();
    assert!(woken.0.load(Ordering::Relaxed));
}

#[tokio::test]
async fn dropping_a_guest_closes_its_streams() {
    let mut launched = launch(echo()).await;
    poll_once(&mut launched).await;
    let Launched {
        mut stdin,
        mut stdout,
        process,
    } = launched;
    drop(process);
    assert_eq!(stdout.read(&mut [0; 9]).await.unwrap(), 0);
    stdin.write_all(b"more").await.unwrap_err();
}

#[tokio::test]
async fn a_second_start_loads_the_compiled_code_from_the_cache() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("cache");
    for _ in 0..2 {
        let component = Component::from_bytes(running("i32.const 0"));
        let stderr = StderrLog::new(component.name.clone());
        let launcher = WasmLauncher::new(component, Some(folder.clone()), Handle::current());
        let mut launched = launcher
            .launch(stderr, CancellationToken::new())
            .await
            .unwrap();
        assert_eq!(ended(&mut launched).await, Exit::Success);
    }
    assert_eq!(folder.read_dir().unwrap().count(), 1);
}

#[test]
fn debug_output_shows_no_bytes() {
    let text = format!("{:?}", Component::from_bytes([201, 202, 203]));
    assert!(
        text.contains("component") && !text.contains("202"),
        "{text}"
    );
}

#[test]
fn a_plugin_is_named_after_its_file() {
    assert_eq!(Component::from_file("/a/policy.wasm").name(), "policy");
    assert_eq!(Component::from_file("/").name(), "/");
    assert_eq!(Component::from_bytes([]).name(), "component");
}

#[tokio::test]
async fn a_guest_that_sleeps_forever_can_be_killed() {
    let component = wat(r#"(component
            (import "wasi:io/poll@0.2.0" (instance $poll
                (export "pollable" (type $pollable (sub resource)))
                (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
            (alias export $poll "pollable" (type $pollable))
            (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
                (alias outer 1 $pollable (type $alarm))
                (export "subscribe-duration" (func (param "when" u64) (result (own $alarm))))))
            (core func $set (canon lower (func $clock "subscribe-duration")))
            (core func $block (canon lower (func $poll "[method]pollable.block")))
            (core module $main
                (import "env" "set" (func $set (param i64) (result i32)))
                (import "env" "block" (func $block (param i32)))
                (func (export "run") (result i32)
                    (call $block (call $set (i64.const -1))) i32.const 0))
            (core instance $main (instantiate $main (with "env" (instance
                (export "set" (func $set))
                (export "block" (func $block))))))
            (func $run (result (result)) (canon lift (core func $main "run")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $command)))"#);
    let mut launched = launch(component).await;
    poll_once(&mut launched).await;
    launched.process.kill();
    assert_eq!(ended(&mut launched).await, Exit::KilledByHost);
}

#[tokio::test]
async fn a_guest_finds_no_files_environment_or_network() {
    let probe = wat(include_str!("probe.wat"));
    assert_eq!(exit_of(probe).await, Exit::Success);
}
