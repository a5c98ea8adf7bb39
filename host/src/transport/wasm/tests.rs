//! Tests of whole components, honest and hostile ones.

mod life;
mod limits;
mod refusals;

use std::future::poll_fn;

use super::*;
use crate::transport::Exit;

/// Short for a test, and longer than an honest component needs.
const CPU_LIMIT: Duration = Duration::from_millis(50);

/// Returns a component whose `wasi:cli/run` is the core function `run` of a core module with
/// these fields. The component's other definitions come `before`.
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

/// Returns a component that runs `body` and returns its i32: 0 is success.
fn running(body: &str) -> Vec<u8> {
    command(
        "",
        &format!(r#"(func $policy (export "run") (result i32) {body})"#),
    )
}

/// Returns a component that calls an imported function without parameters in a loop.
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
        .launch(stderr.clone(), CancellationToken::new())
        .await
        .map(|launched| (launched, stderr))
}

async fn launch(bytes: Vec<u8>) -> Launched {
    try_launch(Component::from_bytes(bytes)).await.unwrap().0
}

async fn ended(launched: &mut Launched) -> Exit {
    poll_fn(|cx| launched.process.poll_exit(cx)).await
}

async fn exit_of(bytes: Vec<u8>) -> Exit {
    let component = Component::from_bytes(bytes).cpu_limit(CPU_LIMIT);
    ended(&mut try_launch(component).await.unwrap().0).await
}
