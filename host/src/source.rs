//! What a plugin is made from.

use std::sync::Arc;

use crate::transport::native::NativeCommand;
use crate::transport::wasm::Component;

/// What a plugin is made from: a program or a component.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Source {
    /// A program, run as a subprocess.
    Native(NativeCommand),
    /// A WASI component, run in this process, in a sandbox.
    Component(Component),
}

impl Source {
    /// Returns the name by which logs and errors call the plugin.
    pub(crate) fn plugin_name(&self) -> Arc<str> {
        match self {
            Self::Native(command) => command.plugin_name(),
            Self::Component(component) => component.name().into(),
        }
    }
}

impl From<NativeCommand> for Source {
    fn from(command: NativeCommand) -> Self {
        Self::Native(command)
    }
}

impl From<Component> for Source {
    fn from(component: Component) -> Self {
        Self::Component(component)
    }
}
