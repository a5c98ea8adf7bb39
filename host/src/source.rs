//! The source of a plugin: a program or a component.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::transport::Launcher;
use crate::transport::native::{GuardCommand, NativeCommand, NativeLauncher};
#[cfg(feature = "wasm")]
use crate::transport::wasm::{Component, WasmLauncher};

/// The program or component that a plugin is started from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Source {
    /// A program, run as a subprocess.
    Native(NativeCommand),
    /// A WASI component, run in this process, in a sandbox.
    #[cfg(feature = "wasm")]
    Component(Component),
}

impl Source {
    /// Returns the plugin's name in logs and errors.
    pub(crate) fn plugin_name(&self) -> Arc<str> {
        match self {
            Self::Native(command) => command.plugin_name(),
            #[cfg(feature = "wasm")]
            Self::Component(component) => component.name().into(),
        }
    }

    /// Creates the launcher. A program is started by `guard`, if there is one; a component is
    /// compiled on `runtime` and cached in `component_cache`.
    #[cfg_attr(
        not(feature = "wasm"),
        expect(unused_variables, reason = "a program needs neither cache nor runtime")
    )]
    pub(crate) fn into_launcher(
        self,
        guard: Option<GuardCommand>,
        component_cache: Option<PathBuf>,
        runtime: &Handle,
    ) -> Box<dyn Launcher> {
        match self {
            Self::Native(command) => Box::new(NativeLauncher::new(command, guard)),
            #[cfg(feature = "wasm")]
            Self::Component(component) => {
                let runtime = runtime.clone();
                Box::new(WasmLauncher::new(component, component_cache, runtime))
            }
        }
    }
}

impl From<NativeCommand> for Source {
    fn from(command: NativeCommand) -> Self {
        Self::Native(command)
    }
}

#[cfg(feature = "wasm")]
impl From<Component> for Source {
    fn from(component: Component) -> Self {
        Self::Component(component)
    }
}
