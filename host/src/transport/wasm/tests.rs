//! Claims about whole components, honest and hostile ones.

use std::future::poll_fn;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::error::Class;
use crate::transport::Exit;

/// Short enough for a test, long enough to compile nothing by accident.
const CPU_LIMIT: Duration = Duration::from_millis(50);

/// A component whose `wasi:cli/run` is the core function `run` of a core module with
/// these fields; what else it has stands in front.
fn command(before: &str, fields: &str) -> Vec<u8> {
    wat(&format!(
        r#"(component
            {before}
            (core module $main {fields})
            (core instance $main (instantiate $main))
            (func $run (result (result)) (canon lift (core func $main "run")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $command)))"#
    ))
}

/// A component that does what `body` says and returns its i32: 0 is success.
fn running(body: &str) -> Vec<u8> {
    command(
        "",
        &format!(r#"(func $policy (export "run") (result i32) {body})"#),
    )
}

/// A component that calls an imported function of no parameters for ever.
fn calling(import: &str, signature: &str) -> Vec<u8> {
    wat(&format!(
        r#"(component
            {import}
            (core func $call (canon lower (func $callee)))
            (core module $main
                (import "env" "call" (func $call {signature}))
                (func (export "run") (result i32)
                    (loop (call $call) drop (br 0)) unreachable))
            (core instance $main (instantiate $main
                (with "env" (instance (export "call" (func $call))))))
            (func $run (result (result)) (canon lift (core func $main "run")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $command)))"#
    ))
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn echo() -> Vec<u8> {
    wat(include_str!("tests/echo.wat"))
}

async fn try_launch(component: Component) -> Result<(Launched, StderrLog), LaunchError> {
    let stderr = StderrLog::new(component.name.clone());
    WasmLauncher::new(component, None, Handle::current())
        .launch(stderr.clone())
        .await
        .map(|launched| (launched, stderr))
}

async fn launch(bytes: Vec<u8>) -> Launched {
    try_launch(Component::from_bytes(bytes)).await.unwrap().0
}

async fn refusal(bytes: Vec<u8>) -> LaunchError {
    match try_launch(Component::from_bytes(bytes)).await {
        Ok(_) => panic!("it was launched"),
        Err(error) => error,
    }
}

async fn ended(launched: &mut Launched) -> Exit {
    poll_fn(|cx| launched.instance.poll_exit(cx)).await
}

async fn exit_of(bytes: Vec<u8>) -> Exit {
    let component = Component::from_bytes(bytes).cpu_limit(CPU_LIMIT);
    ended(&mut try_launch(component).await.unwrap().0).await
}

/// Polls once, and expects that it goes on.
async fn poll_once(launched: &mut Launched) {
    poll_fn(|cx| {
        assert!(launched.instance.poll_exit(cx).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn what_run_returns_is_the_exit() {
    assert_eq!(exit_of(running("i32.const 0")).await, Exit::Success);
    assert_eq!(
        exit_of(running("i32.const 1")).await,
        Exit::failed(Class::Crash, "exit status 1")
    );
}

#[tokio::test]
async fn what_the_guest_exits_with_is_the_exit() {
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
        Exit::failed(Class::Crash, "exit status 1")
    );
}

#[tokio::test]
async fn a_trap_says_why_and_its_functions_stand_in_stderr() {
    let component = Component::from_bytes(running("unreachable"));
    let (mut launched, stderr) = try_launch(component).await.unwrap();
    assert_eq!(
        ended(&mut launched).await,
        Exit::failed(Class::Trap, "trap: wasm `unreachable` instruction executed")
    );
    assert!(stderr.tail().contains("policy"), "{}", stderr.tail());
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    let fields = r#"(func $f (export "run") (result i32) call $f)"#;
    assert_eq!(
        exit_of(command("", fields)).await,
        Exit::failed(Class::Trap, "trap: call stack exhausted")
    );
}

#[tokio::test]
async fn a_spinning_guest_exceeds_its_cpu_limit() {
    assert_eq!(
        exit_of(running("(loop (br 0)) unreachable")).await,
        Exit::failed(
            Class::Resource,
            "trap: the CPU limit of 50ms without a yield to the host was exceeded"
        )
    );
}

#[tokio::test]
async fn a_guest_that_spins_while_it_is_instantiated_exceeds_its_cpu_limit() {
    let fields = r#"(func $spin (loop (br 0))) (start $spin)
        (func (export "run") (result i32) i32.const 0)"#;
    assert_eq!(
        exit_of(command("", fields)).await,
        Exit::failed(
            Class::Resource,
            "trap: cannot be instantiated: \
             the CPU limit of 50ms without a yield to the host was exceeded"
        )
    );
}

#[tokio::test]
async fn a_guest_that_grows_for_ever_exceeds_its_memory_limit() {
    let fields = r#"(memory 1) (func (export "run") (result i32)
        (loop (memory.grow (i32.const 1)) drop (br 0)) unreachable)"#;
    let component = Component::from_bytes(command("", fields)).memory_limit(2 << 20);
    let (mut launched, _) = try_launch(component).await.unwrap();
    assert_eq!(
        ended(&mut launched).await,
        Exit::failed(
            Class::Resource,
            "trap: the memory limit of 2 MiB was exceeded"
        )
    );
}

#[tokio::test]
async fn memory_that_a_guest_starts_with_counts() {
    let fields = r#"(memory 1025) (func (export "run") (result i32) i32.const 0)"#;
    assert_eq!(
        exit_of(command("", fields)).await,
        Exit::failed(
            Class::Resource,
            "trap: cannot be instantiated: the memory limit of 64 MiB was exceeded"
        )
    );
}

#[tokio::test]
async fn too_much_of_anything_is_named() {
    let run = r#"(func (export "run") (result i32) i32.const 0)"#;
    let repeated = |part: &str, times| part.repeat(times) + run;
    let instances =
        "(core module $m) ".to_owned() + &"(core instance (instantiate $m)) ".repeat(64);
    let hostile = [
        (command("", &repeated("(memory 0) ", 9)), "8 memories"),
        (command("", &repeated("(table 0 funcref) ", 9)), "8 tables"),
        (
            command("", &repeated("(table 20001 funcref) ", 1)),
            "20000 elements in a table",
        ),
        (command(&instances, run), "64 instances"),
    ];
    for (component, limit) in hostile {
        let words = format!("trap: cannot be instantiated: the limit of {limit} was exceeded");
        assert_eq!(
            exit_of(component).await,
            Exit::failed(Class::Resource, words)
        );
    }
}

#[tokio::test]
async fn streams_cannot_be_opened_without_end() {
    let import = r#"
        (import "wasi:io/streams@0.2.0" (instance $streams
            (export "input-stream" (type (sub resource)))))
        (alias export $streams "input-stream" (type $input))
        (import "wasi:cli/stdin@0.2.0" (instance $stdin
            (alias outer 1 $input (type $stream))
            (export "get-stdin" (func (result (own $stream))))))
        (alias export $stdin "get-stdin" (func $callee))"#;
    assert_eq!(
        exit_of(calling(import, "(result i32)")).await,
        Exit::failed(
            Class::Resource,
            "trap: the limit of 1024 open streams and pollables was exceeded"
        )
    );
}

#[tokio::test]
async fn handles_cannot_be_made_without_end() {
    let component = wat(r#"(component
            (type $thing (resource (rep i32)))
            (core func $new (canon resource.new $thing))
            (core module $main
                (import "env" "new" (func $new (param i32) (result i32)))
                (func (export "run") (result i32)
                    (loop (call $new (i32.const 0)) drop (br 0)) unreachable))
            (core instance $main (instantiate $main
                (with "env" (instance (export "new" (func $new))))))
            (func $run (result (result)) (canon lift (core func $main "run")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $command)))"#);
    assert_eq!(
        exit_of(component).await,
        Exit::failed(
            Class::Resource,
            "trap: the limit of 4096 handles was exceeded"
        )
    );
}

#[tokio::test]
async fn imports_outside_of_wasi_0_2_are_refused_by_name() {
    let component = wat(r#"(component
            (import "wasi:cli/stdin@0.2.6" (instance))
            (import "wasi:http/types@0.2.0" (instance))
            (import "wasi:cli/stdout@0.3.0" (instance))
            (import "unknown:thing/here" (func)))"#);
    let error = refusal(component).await;
    assert_eq!(error.class(), Class::Import);
    assert_eq!(
        error.to_string(),
        "failed to launch the plugin: the component imports what is not part of WASI 0.2: \
         wasi:http/types@0.2.0, wasi:cli/stdout@0.3.0, unknown:thing/here"
    );
}

#[tokio::test]
async fn an_unknown_function_of_a_known_interface_is_refused_by_name() {
    let component = calling(
        r#"(import "wasi:cli/environment@0.2.0" (instance $env
            (export "get-secrets" (func (result u32)))))
        (alias export $env "get-secrets" (func $callee))"#,
        "(result i32)",
    );
    let error = refusal(component).await;
    assert_eq!(error.class(), Class::Import);
    let text = error.to_string();
    assert!(text.contains("wasi:cli/environment@0.2.0"), "{text}");
    assert!(text.contains("get-secrets"), "{text}");
}

#[tokio::test]
async fn a_component_that_is_no_command_is_refused() {
    let error = refusal(wat("(component)")).await;
    assert_eq!(
        error.to_string(),
        "failed to launch the plugin: the component does not export `wasi:cli/run` \
         of WASI 0.2, build it as a command"
    );
}

#[tokio::test]
async fn a_component_that_was_cut_short_is_refused_wherever_it_ends() {
    let whole = echo();
    for part in 0..64 {
        let error = refusal(whole[..whole.len() * part / 64].to_vec()).await;
        assert_eq!(error.class(), Class::Launch, "{error}");
    }
}

#[tokio::test]
async fn a_guest_answers_what_it_is_sent_and_ends_with_its_stdin() {
    let mut launched = launch(echo()).await;
    for round in 0..100_u32 {
        let sent = round.to_le_bytes();
        launched.stdin.write_all(&sent).await.unwrap();
        let mut received = [0; 4];
        tokio::select! {
            read = launched.stdout.read_exact(&mut received) => read.map(drop).unwrap(),
            exit = poll_fn(|cx| launched.instance.poll_exit(cx)) => panic!("{exit}"),
        }
        assert_eq!(received, sent);
    }
    launched.stdin.shutdown().await.unwrap();
    assert_eq!(ended(&mut launched).await, Exit::Success);
    assert_eq!(launched.stdout.read(&mut [0; 9]).await.unwrap(), 0);
}

#[tokio::test]
async fn more_than_the_pipes_hold_gets_through_both() {
    let Launched {
        mut stdin,
        mut stdout,
        mut instance,
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
        poll_fn(|cx| instance.poll_exit(cx)),
    );
    read.unwrap();
    assert_eq!(exit, Exit::Success);
    assert!(received == bytes);
}

#[tokio::test]
async fn what_was_written_before_the_end_can_be_read_after_it() {
    let mut launched = launch(echo()).await;
    launched.stdin.write_all(b"verdict").await.unwrap();
    poll_once(&mut launched).await;
    launched.instance.kill();
    assert_eq!(ended(&mut launched).await, Exit::KilledByHost);
    let mut rest = Vec::new();
    launched.stdout.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"verdict");
    let error = launched.stdin.write_all(b"more").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_guest_whose_output_is_dropped_finds_it_closed() {
    let Launched {
        mut stdin,
        stdout,
        mut instance,
    } = launch(echo()).await;
    drop(stdout);
    stdin.write_all(b"anybody there?").await.unwrap();
    assert_eq!(
        poll_fn(|cx| instance.poll_exit(cx)).await,
        Exit::failed(Class::Crash, "exit status 1")
    );
}

#[tokio::test]
async fn a_spinning_guest_lets_the_session_have_its_turn_and_can_be_killed() {
    let mut launched = launch(running("(loop (br 0)) unreachable")).await;
    poll_once(&mut launched).await;
    poll_once(&mut launched).await;
    launched.instance.kill();
    assert_eq!(ended(&mut launched).await, Exit::KilledByHost);
}

#[tokio::test]
async fn a_guest_that_never_ran_can_be_killed() {
    let mut launched = launch(echo()).await;
    launched.instance.kill();
    assert_eq!(ended(&mut launched).await, Exit::KilledByHost);
}

#[tokio::test]
async fn killing_wakes_whoever_waits_for_the_end() {
    let mut launched = launch(echo()).await;
    let waiter = tokio_test_waker();
    let mut cx = std::task::Context::from_waker(&waiter.1);
    assert!(launched.instance.poll_exit(&mut cx).is_pending());
    launched.instance.kill();
    assert!(waiter.0.load(std::sync::atomic::Ordering::Relaxed));
}

#[tokio::test]
async fn dropping_a_guest_ends_its_streams() {
    let mut launched = launch(echo()).await;
    poll_once(&mut launched).await;
    let Launched {
        mut stdin,
        mut stdout,
        instance,
    } = launched;
    drop(instance);
    assert_eq!(stdout.read(&mut [0; 9]).await.unwrap(), 0);
    stdin.write_all(b"more").await.unwrap_err();
}

#[tokio::test]
async fn a_second_start_takes_the_compiled_code_from_the_cache() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("cache");
    for _ in 0..2 {
        let component = Component::from_bytes(running("i32.const 0"));
        let stderr = StderrLog::new(component.name.clone());
        let launcher = WasmLauncher::new(component, Some(folder.clone()), Handle::current());
        let mut launched = launcher.launch(stderr).await.unwrap();
        assert_eq!(ended(&mut launched).await, Exit::Success);
    }
    assert_eq!(folder.read_dir().unwrap().count(), 1);
}

#[test]
fn a_plugin_is_named_after_its_file() {
    assert_eq!(Component::from_file("/a/policy.wasm").name(), "policy");
    assert_eq!(Component::from_file("/").name(), "/");
    assert_eq!(Component::from_bytes([]).name(), "component");
}

fn tokio_test_waker() -> (Arc<std::sync::atomic::AtomicBool>, std::task::Waker) {
    struct Flag(Arc<std::sync::atomic::AtomicBool>);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let woken = Arc::default();
    let waker = Arc::new(Flag(Arc::clone(&woken))).into();
    (woken, waker)
}
