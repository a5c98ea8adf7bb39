//! A host in a process of its own, for tests to send signals to: `host guarded PLUGIN...`
//! or `host unguarded PLUGIN...`. It says what the plugin answers to one question before
//! SIGINT and to another one after, and how the plugin has ended.
#![allow(clippy::print_stdout, reason = "tests read it")]

use std::ffi::OsString;
use std::process::ExitCode;

use admission_host::{Host, HostOptions, NativeCommand, Plugin, guard};
use conformance::{GRACE, pin};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

const GUARD: &str = "--guard";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next().expect("a first argument");
    if first == GUARD {
        return guard::run(arguments);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(serve(first == "guarded", arguments.collect()));
    ExitCode::SUCCESS
}

async fn serve(guarded: bool, plugin: Vec<OsString>) {
    let mut interrupted = signal(SignalKind::interrupt()).expect("a signal to listen to");
    let mut options = HostOptions::new(Handle::current());
    if guarded {
        options = options.guard("/proc/self/exe", [GUARD]);
    }
    let plugin = Plugin::new(&Host::new(options), NativeCommand::new(plugin));
    say(&plugin, "allow/before").await;
    interrupted.recv().await;
    say(&plugin, "allow/after").await;
    println!("{}", plugin.close(GRACE).await);
}

async fn say(plugin: &Plugin, question: &str) {
    match plugin.check_admission(&pin(question)).wait().await {
        Ok(()) => println!("admitted"),
        Err(error) => println!("{error}"),
    }
}
