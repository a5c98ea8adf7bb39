//! What a component sees of the world: its stdio, the clocks and random numbers.

use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Result};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::limits::{Limits, MAX_RANDOM, MAX_RESOURCES};
use super::stdio::{GuestStderr, GuestStdin, GuestStdout};

/// What the store of one guest holds.
pub(super) struct Guest {
    wasi: WasiCtx,
    resources: ResourceTable,
    pub(super) limits: Limits,
}

impl Guest {
    /// Makes the world of a guest to which nothing is granted: no directories, no
    /// environment, no arguments, no network.
    pub(super) fn new(
        stdin: GuestStdin,
        stdout: GuestStdout,
        stderr: GuestStderr,
        limits: Limits,
    ) -> Self {
        let wasi = WasiCtx::builder()
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            // By default sockets can be made, though not used: each is a descriptor.
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
            limits,
        }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.resources,
        }
    }
}

/// Connects a component with the WASI of this crate. Runs nothing of it.
///
/// # Errors
///
/// When an import has another shape than in WASI 0.2, or `wasi:cli/run` is not exported.
pub(super) fn link(engine: &Engine, component: &Component) -> Result<CommandPre<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    CommandPre::new(linker.instantiate_pre(component)?)
}
