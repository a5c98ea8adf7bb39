//! Tests of components that are refused before they run.

use super::*;
use crate::error_kind::ErrorKind;

async fn refusal(bytes: Vec<u8>) -> LaunchError {
    match try_launch(Component::from_bytes(bytes)).await {
        Ok(_) => panic!("it was launched"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn imports_outside_of_wasi_0_2_are_refused_by_name() {
    let component = wat(r#"(component
            (import "wasi:cli/stdin@0.2.6" (instance))
            (import "wasi:http/types@0.2.0" (instance))
            (import "wasi:cli/stdout@0.3.0" (instance))
            (import "unknown:thing/here" (func)))"#);
    let error = refusal(component).await;
    assert_eq!(error.kind(), ErrorKind::Import);
    assert_eq!(
        error.to_string(),
        "failed to launch the plugin: the component has imports that are not part of WASI 0.2: \
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
    assert_eq!(error.kind(), ErrorKind::Import);
    let text = error.to_string();
    assert!(text.contains("wasi:cli/environment@0.2.0"), "{text}");
    assert!(text.contains("get-secrets"), "{text}");
}

#[tokio::test]
async fn a_component_without_run_is_refused() {
    let error = refusal(wat("(component)")).await;
    assert_eq!(
        error.to_string(),
        "failed to launch the plugin: the component does not export `wasi:cli/run` \
         of WASI 0.2; build it as a command"
    );
}

#[tokio::test]
async fn a_truncated_component_is_refused_wherever_it_ends() {
    let whole = echo();
    for part in 0..64 {
        let error = refusal(whole[..whole.len() * part / 64].to_vec()).await;
        assert_eq!(error.kind(), ErrorKind::Launch, "{error}");
    }
}

#[test]
fn a_damaged_component_compiles_or_is_refused() {
    let engine = engine::engine().unwrap();
    let mut random = 1_u64;
    let mut next = |below: usize| {
        // Knuth's generator, with a fixed seed: the same damage in every run.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    let mut refused = 0;
    for _ in 0..200 {
        let mut bytes = echo();
        for _ in 0..1 + next(3) {
            let at = next(bytes.len());
            bytes[at] = u8::try_from(next(256)).unwrap();
        }
        if let Err(error) = prepare(engine, &Component::from_bytes(bytes), None) {
            assert!(matches!(
                error.kind(),
                ErrorKind::Launch | ErrorKind::Import
            ));
            assert!(error.to_string().len() < 4096, "{error}");
            refused += 1;
        }
    }
    assert!(refused > 0);
}
