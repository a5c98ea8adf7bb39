//! The interfaces that a component may import, and their implementations: stdio, clocks and
//! random numbers.

use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Result};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::limits::{MAX_RANDOM, MAX_RESOURCES, StoreLimits};
use super::stdio::{GuestStderr, GuestStdin, GuestStdout, Stdio};

/// The interfaces that a component may import. Most of them are empty or refuse every call.
const LINKED: [&str; 27] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// The entry point of a component that is a command.
const RUN: &str = "wasi:cli/run";

/// Returns the names of imports that are not linked.
pub(super) fn unknown_imports(engine: &Engine, component: &Component) -> Vec<String> {
    component
        .component_type()
        .imports(engine)
        .map(|(name, _)| name)
        .filter(|name| !LINKED.iter().any(|linked| is_stable_version(name, linked)))
        .map(str::to_owned)
        .collect()
}

/// Returns whether a component is a command of WASI 0.2.
pub(super) fn exports_run(engine: &Engine, component: &Component) -> bool {
    component
        .component_type()
        .exports(engine)
        .any(|(name, _)| is_stable_version(name, RUN))
}

/// Returns whether `name` is `interface` at a version 0.2.x. All of these are compatible; the
/// drafts before 0.2.0, which have a suffix, are not.
fn is_stable_version(name: &str, interface: &str) -> bool {
    name.strip_prefix(interface)
        .and_then(|rest| rest.strip_prefix("@0.2."))
        .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Links a component with WASI. Runs none of its code.
///
/// # Errors
///
/// If an import has another type than in WASI 0.2, or `wasi:cli/run` is not exported.
pub(super) fn link(engine: &Engine, component: &Component) -> Result<CommandPre<GuestState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    CommandPre::new(linker.instantiate_pre(component)?)
}

/// The data of one guest's store.
pub(super) struct GuestState {
    wasi: WasiCtx,
    resources: ResourceTable,
    pub(super) limits: StoreLimits,
}

impl GuestState {
    /// Creates the state of a guest without directories, environment and network. Its command
    /// line has this `name` and these `args`, or is empty if there are none.
    pub(super) fn new(
        stdin: GuestStdin,
        stdout: GuestStdout,
        stderr: GuestStderr,
        memory_limit: u64,
        name: &str,
        args: &[String],
    ) -> Self {
        let mut wasi = WasiCtx::builder();
        if !args.is_empty() {
            // The first argument of a program is its name.
            wasi.arg(name).args(args);
        }
        let wasi = wasi
            .stdin(Stdio(stdin))
            .stdout(Stdio(stdout))
            .stderr(Stdio(stderr))
            // By default a guest can create sockets that it cannot use. Each takes a descriptor.
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(MAX_RANDOM)
            .build();
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(MAX_RESOURCES);
        Self {
            wasi,
            resources,
            limits: StoreLimits::new(memory_limit),
        }
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.resources,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::wasm::engine::engine;

    #[test]
    fn every_version_0_2_is_known_and_no_other() {
        let known = |name| is_stable_version(name, "wasi:cli/stdin");
        assert!(known("wasi:cli/stdin@0.2.0"));
        assert!(known("wasi:cli/stdin@0.2.12"));
        assert!(!known("wasi:cli/stdin"));
        assert!(!known("wasi:cli/stdin@0.2."));
        assert!(!known("wasi:cli/stdin@0.2.0-rc-2023-11-10"));
        assert!(!known("wasi:cli/stdin@0.3.0"));
        assert!(!known("wasi:cli/stdin-too@0.2.0"));
    }

    #[test]
    fn every_listed_interface_is_linked() {
        let engine = engine().unwrap();
        for interface in LINKED {
            let text = format!(r#"(component (import "{interface}@0.2.0" (instance)))"#);
            let component = Component::new(engine, wat::parse_str(text).unwrap()).unwrap();
            assert!(unknown_imports(engine, &component).is_empty());
            let error = link(engine, &component).err().unwrap();
            assert!(format!("{error:#}").contains(RUN), "{interface}: {error:#}");
        }
    }
}
