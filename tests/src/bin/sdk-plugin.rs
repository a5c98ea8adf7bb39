//! A plugin built with the SDK. The argument selects how it runs, and the package name selects
//! what its handler does.

use std::future::pending;
use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::process::Command;
use std::{env, panic, thread};

use admission_sdk::{
    Admission, Code, InstanceInfo, RunError, Status, log_line, run_plugin, run_plugin_async,
};
use tracing::Level;

const VERSION: &str = "test 1.0";

fn main() -> Result<(), RunError> {
    match env::args().nth(1).as_deref() {
        Some("inside-runtime") => block_on(async { run_plugin(VERSION, judge) }),
        Some("async") => block_on(run_plugin_async(VERSION, judge)),
        Some("twice") => {
            run_plugin(VERSION, judge)?;
            run_plugin(VERSION, judge)
        }
        _ => run_plugin(VERSION, judge),
    }
}

fn block_on(body: impl Future<Output = Result<(), RunError>>) -> Result<(), RunError> {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(RunError::Thread)?
        .block_on(body)
}

async fn judge(admission: Admission, info: InstanceInfo) -> Result<(), Status> {
    match admission.package.as_str() {
        "deny" => Err(Status::denied("because")),
        "panic" => panic!("boo {}", 1),
        "panic-without-text" => panic::panic_any(42),
        "block" => block(),
        "wait" => pending().await,
        "print" => print(),
        "log" => {
            tracing::debug!(entries = 3, "quiet");
            tracing::info!("loud");
            Ok(())
        }
        "forward" => {
            log_line(Level::INFO, "unasked for");
            log_line(Level::WARN, "as\nit is :: {}");
            Ok(())
        }
        "flood" => {
            (0..100_000).for_each(|n| tracing::info!("{n} {}", "x".repeat(100)));
            Ok(())
        }
        "timer" => {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            Ok(())
        }
        "metadata" => metadata(&info).await,
        "first-metadata" => first_metadata(&info).await,
        "page" => page(&info).await,
        _ => Ok(()),
    }
}

/// Blocks its thread forever.
fn block() -> ! {
    tracing::info!("blocking");
    loop {
        thread::park();
    }
}

/// Writes to stdout and reads stdin, also in a child process.
#[expect(clippy::print_stdout, reason = "the SDK redirects stdout")]
fn print() -> Result<(), Status> {
    println!("printed");
    let failed = |error: io::Error| Status::new(Code::INTERNAL, error.to_string());
    let status = Command::new("sh")
        .args(["-c", "echo printed by a child; exec cat"])
        .status()
        .map_err(failed)?;
    let mut read = String::new();
    io::stdin().read_to_string(&mut read).map_err(failed)?;
    if status.success() && read.is_empty() {
        Ok(())
    } else {
        Err(Status::denied(format!("{status}, read {read:?}")))
    }
}

/// Denies with all values.
async fn metadata(info: &InstanceInfo) -> Result<(), Status> {
    let mut values = Vec::new();
    info.visit_metadata(&["a", "b"], 2, |entry| {
        values.push(String::from_utf8_lossy(&entry.value).into_owned());
        ControlFlow::Continue(())
    })
    .await?;
    Err(Status::denied(values.join(",")))
}

async fn first_metadata(info: &InstanceInfo) -> Result<(), Status> {
    info.visit_metadata(&[], 0, |_| ControlFlow::Break(()))
        .await
}

/// Denies with the values of one page and its page token.
async fn page(info: &InstanceInfo) -> Result<(), Status> {
    let page = info.list_metadata(&["a"], -1, "from here").await?;
    let values = page.metadata.iter().map(|entry| &entry.value[..]);
    let values = String::from_utf8_lossy(&values.collect::<Vec<_>>().join(&b',')).into_owned();
    Err(Status::denied(format!(
        "{values}; {}",
        page.next_page_token
    )))
}
