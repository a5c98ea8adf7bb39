//! Admits instances whose hash is in their metadata, and denies experimental packages.
//!
//! To allow an instance, attach metadata to it with the key `allowed-sha256` and its hex digest
//! as the value. `cargo build` builds a native plugin from this file, and
//! `cargo build --target wasm32-wasip2` a component.

use std::ops::ControlFlow;

use admission_sdk::{Admission, InstanceInfo, RunError, Status, run_plugin};

const ALLOWED: &str = "allowed-sha256";

fn main() -> Result<(), RunError> {
    run_plugin(env!("CARGO_PKG_VERSION"), judge)
}

async fn judge(admission: Admission, info: InstanceInfo) -> Result<(), Status> {
    let package = &admission.package;
    if package.starts_with("experimental/") {
        return Err(Status::denied("experimental packages are not deployed"));
    }
    let digest = &admission.instance.hex_digest;
    let (mut entries, mut allowed) = (0, false);
    info.visit_metadata(&[ALLOWED], 0, |entry| {
        entries += 1;
        allowed = entry.value == digest.as_bytes();
        if allowed {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .await?;
    match (allowed, entries) {
        (true, _) => Ok(()),
        (false, 0) => Err(Status::denied(format!("it has no {ALLOWED} metadata"))),
        (false, _) => Err(Status::denied(format!(
            "no {ALLOWED} entry matches its digest (entries: {entries})"
        ))),
    }
}
