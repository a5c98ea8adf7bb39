//! Tests of components that exceed a limit.

use tokio::io::AsyncWriteExt;

use super::*;
use crate::error_kind::ErrorKind;

#[tokio::test]
async fn a_spinning_guest_exceeds_its_cpu_limit() {
    assert_eq!(
        exit_of(running("(loop (br 0)) unreachable")).await,
        Exit::failed(
            ErrorKind::Resource,
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
            ErrorKind::Resource,
            "trap: cannot be instantiated: \
             the CPU limit of 50ms without a yield to the host was exceeded"
        )
    );
}

#[tokio::test]
async fn a_guest_that_keeps_growing_exceeds_its_memory_limit() {
    let fields = r#"(memory 1) (func (export "run") (result i32)
        (loop (memory.grow (i32.const 1)) drop (br 0)) unreachable)"#;
    let component = Component::from_bytes(command("", fields)).memory_limit(2 << 20);
    let (mut launched, _) = try_launch(component).await.unwrap();
    assert_eq!(
        ended(&mut launched).await,
        Exit::failed(
            ErrorKind::Resource,
            "trap: the memory limit of 2 MiB was exceeded"
        )
    );
}

#[tokio::test]
async fn the_initial_memory_of_a_guest_counts() {
    let fields = r#"(memory 1025) (func (export "run") (result i32) i32.const 0)"#;
    assert_eq!(
        exit_of(command("", fields)).await,
        Exit::failed(
            ErrorKind::Resource,
            "trap: cannot be instantiated: the memory limit of 64 MiB was exceeded"
        )
    );
}

#[tokio::test]
async fn the_error_names_the_exceeded_limit() {
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
            Exit::failed(ErrorKind::Resource, words)
        );
    }
}

#[tokio::test]
async fn the_number_of_open_streams_is_limited() {
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
            ErrorKind::Resource,
            "trap: the limit of 1024 open streams and pollables was exceeded"
        )
    );
}

#[tokio::test]
async fn the_number_of_handles_is_limited() {
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
            ErrorKind::Resource,
            "trap: the limit of 4096 handles was exceeded"
        )
    );
}

#[tokio::test]
async fn the_bytes_copied_for_one_call_are_limited() {
    // The guest writes 2 MiB, whatever it has read.
    let greedy = include_str!("echo.wat")
        .replace("(i32.load (i32.const 8))", "(i32.const 0x200000)")
        .replace(r#"(export "memory") 2"#, r#"(export "memory") 40"#);
    let mut launched = launch(wat(&greedy)).await;
    launched.stdin.write_all(b"a").await.unwrap();
    launched.stdin.shutdown().await.unwrap();
    assert_eq!(
        ended(&mut launched).await,
        Exit::failed(
            ErrorKind::Resource,
            "trap: the limit of 1 MiB in one call to the host was exceeded"
        )
    );
}

#[tokio::test]
async fn the_random_bytes_of_one_call_are_limited() {
    let component = wat(r#"(component
            (import "wasi:random/random@0.2.0" (instance $random
                (export "get-random-bytes" (func
                    (param "len" u64) (result (list u8))))))
            (core module $memory
                (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable))
            (core instance $memory (instantiate $memory))
            (core func $bytes (canon lower (func $random "get-random-bytes")
                (memory $memory "memory") (realloc (func $memory "realloc"))))
            (core module $main
                (import "env" "bytes" (func $bytes (param i64 i32)))
                (func (export "run") (result i32)
                    (call $bytes (i64.const 4294967296) (i32.const 0)) unreachable))
            (core instance $main (instantiate $main
                (with "env" (instance (export "bytes" (func $bytes))))))
            (func $run (result (result)) (canon lift (core func $main "run")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $command)))"#);
    assert_eq!(
        exit_of(component).await,
        Exit::failed(
            ErrorKind::Resource,
            "trap: the limit of 64 KiB of random numbers in one call was exceeded"
        )
    );
}
