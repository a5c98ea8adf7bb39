//! A host in a separate process, to which tests send signals: `host guarded PLUGIN...` or
//! `host unguarded PLUGIN...`. It prints the outcome of a check before SIGINT, the outcome of
//! another check after SIGINT, and how the plugin exited.
#![allow(clippy::print_stdout, reason = "tests read it")]

use std::ffi::OsString;
use std::process::ExitCode;

use admission_host::{HostOptions, NativeCommand, Plugin};
use conformance::{GRACE, Mode, own_guard, pin};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    if let Some(ended) = own_guard::run_if_guard() {
        return ended;
    }
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next().expect("a first argument");
    let mode = if first == "guarded" {
        Mode::Guarded
    } else {
        Mode::Native
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(serve(mode, arguments.collect()));
    ExitCode::SUCCESS
}

async fn serve(mode: Mode, plugin: Vec<OsString>) {
    let mut interrupted = signal(SignalKind::interrupt()).expect("a signal to listen to");
    let host = own_guard::host(mode, HostOptions::new(Handle::current()));
    let plugin = host.plugin(NativeCommand::new(plugin));
    print_outcome(&plugin, "allow/before").await;
    interrupted.recv().await;
    print_outcome(&plugin, "allow/after").await;
    println!("{}", plugin.close(GRACE).await);
}

async fn print_outcome(plugin: &Plugin, package: &str) {
    match plugin.check_admission(&pin(package)).wait().await {
        Ok(()) => println!("admitted"),
        Err(error) => println!("{error}"),
    }
}
