//! The admission plugin of the reference's tests.

use std::future::pending;
use std::io;
use std::ops::ControlFlow;
use std::process::exit;
use std::sync::atomic::{AtomicUsize, Ordering};

use admission_sdk::{Admission, Code, Handler, InstanceInfo, Status, run_plugin};
use anyhow::{Context as _, bail};

use crate::CRASH;

/// The service of the admissions. Others are denied.
const SERVICE_URL: &str = "https://example.com";

/// Number of entries that `VISIT_METADATA_ALL` expects.
const VALUES: usize = 15;

pub(crate) fn run(mode: &str) -> anyhow::Result<()> {
    let mode = match mode {
        "NORMAL_REPLY" => Mode::NormalReply,
        "BLOCK_REQUEST" => Mode::BlockRequest,
        "CRASH_ON_SECOND_REQUEST" => Mode::CrashOnSecondRequest,
        "BLOCK_ALL_BUT_FIRST" => Mode::BlockAllButFirst,
        "VISIT_METADATA_ALL" => Mode::VisitMetadataAll,
        "VISIT_METADATA_ONE" => Mode::VisitMetadataOne,
        "NOT_CONNECTING" => return wait_without_connecting(),
        "CRASHING_WHEN_CONNECTING" => exit(CRASH),
        other => bail!("an admission plugin has no mode {other}"),
    };
    let requests = AtomicUsize::new(0);
    Ok(run_plugin("modes", Plugin { mode, requests })?)
}

fn wait_without_connecting() -> anyhow::Result<()> {
    io::copy(&mut io::stdin(), &mut io::sink()).context("cannot read stdin")?;
    Ok(())
}

enum Mode {
    NormalReply,
    BlockRequest,
    CrashOnSecondRequest,
    BlockAllButFirst,
    VisitMetadataAll,
    VisitMetadataOne,
}

struct Plugin {
    mode: Mode,
    /// Number of admissions so far.
    requests: AtomicUsize,
}

impl Handler for Plugin {
    async fn handle(&self, admission: Admission, info: InstanceInfo) -> Result<(), Status> {
        if admission.service_url != SERVICE_URL {
            return Err(Status::denied("unexpected host"));
        }
        let is_first = self.requests.fetch_add(1, Ordering::SeqCst) == 0;
        match self.mode {
            Mode::NormalReply => normal_reply(&admission),
            Mode::BlockRequest => pending().await,
            Mode::CrashOnSecondRequest | Mode::BlockAllButFirst if is_first => Ok(()),
            Mode::CrashOnSecondRequest => exit(CRASH),
            Mode::BlockAllButFirst => pending().await,
            Mode::VisitMetadataAll => visit(&info, 7, VALUES).await,
            Mode::VisitMetadataOne => visit(&info, 0, 1).await,
        }
    }
}

fn normal_reply(admission: &Admission) -> Result<(), Status> {
    if admission.package.starts_with("good/") {
        return Ok(());
    }
    tracing::info!("the package {} is not good", admission.package);
    Err(Status::denied("the plugin says boo"))
}

/// Visits `wanted` entries, and checks their values.
async fn visit(info: &InstanceInfo, page_size: i64, wanted: usize) -> Result<(), Status> {
    let mut values = Vec::new();
    info.visit_metadata(&["some-key"], page_size, |entry| {
        values.push(String::from_utf8_lossy(&entry.value).into_owned());
        if wanted == 1 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .await?;
    let expected = (0..wanted).map(|n| format!("metadata-value-{n}"));
    if values.iter().cloned().eq(expected) {
        return Ok(());
    }
    Err(Status::new(
        Code::INTERNAL,
        format!("unexpected metadata: {}", values.join(" ")),
    ))
}
