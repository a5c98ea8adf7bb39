//! The plugin that the options describe, and the host that runs it.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use admission_host::{
    Component, Host, HostOptions, NativeCommand, Plugin, PluginOptions, Source, Wire,
};
use anyhow::Context as _;
use etcetera::BaseStrategy as _;
use tokio::runtime::{self, Runtime};
use tracing::{info, warn};

use crate::args::{CommandArgs, ComponentArgs, PluginArgs, Timeout, Variable};
use crate::hint::PluginKind;

/// The first argument of this program when it runs as the guard of a plugin. The parser of the
/// command line does not know it, because a guard must start its work before anything else.
pub(crate) const GUARD: &str = "--guard-of-a-plugin";

/// Worker threads: one for the session with the plugin and one for everything else.
const WORKERS: usize = 2;

/// A plugin that was configured and not started.
pub(crate) struct ConfiguredPlugin {
    pub(crate) kind: PluginKind,
    source: Source,
    /// The directory for compiled components.
    cache: Option<PathBuf>,
    timeout: Timeout,
}

/// Starts the async runtime that plugins run on.
pub(crate) fn start_runtime() -> anyhow::Result<Runtime> {
    runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}

impl ConfiguredPlugin {
    /// Configures the component or the command of the options. Opens no file.
    pub(crate) fn from_args(args: PluginArgs) -> Self {
        let (component, command) = (args.component, args.command);
        match &component.component {
            Some(file) => Self {
                kind: PluginKind::Component,
                source: configure_component(file.clone(), &component).into(),
                cache: cache_directory(component),
                timeout: args.timeout,
            },
            None => {
                let wire = command.wire.unwrap_or_default();
                Self {
                    kind: PluginKind::Command(wire),
                    source: configure_command(command, wire).into(),
                    cache: None,
                    timeout: args.timeout,
                }
            }
        }
    }

    /// Configures the plugin of `cipd` as `cipd` runs it: over gRPC, and with the whole
    /// environment.
    pub(crate) fn from_cipd_config(argv: Vec<OsString>, args: PluginArgs) -> Self {
        let command = CommandArgs {
            command: argv,
            inherit_env: true,
            ..args.command
        };
        Self {
            kind: PluginKind::CommandOfCipd,
            source: configure_command(command, Wire::Grpc).into(),
            cache: None,
            timeout: args.timeout,
        }
    }

    /// Creates the plugin, and the host that runs it with `options`. Starts nothing.
    pub(crate) fn create(self, options: HostOptions) -> (Host, Plugin) {
        let mut options = options
            .guard("/proc/self/exe", [GUARD])
            .name_and_version(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        if let Some(cache) = self.cache {
            options = options.component_cache(cache);
        }
        let mut plugin_options = PluginOptions::default();
        if let Some(timeout) = self.timeout {
            plugin_options = plugin_options.check_timeout(timeout);
        }
        let host = Host::new(options);
        let plugin = host.plugin_with_options(self.source, plugin_options);
        (host, plugin)
    }
}

fn configure_component(file: PathBuf, args: &ComponentArgs) -> Component {
    let mut component = Component::from_file(file);
    if let Some(bytes) = args.memory_limit {
        component = component.memory_limit(bytes);
    }
    if let Some(limit) = args.cpu_limit {
        component = component.cpu_limit(limit);
    }
    component
}

fn cache_directory(args: ComponentArgs) -> Option<PathBuf> {
    if args.no_cache || args.cache_dir.is_some() {
        return args.cache_dir;
    }
    match etcetera::choose_base_strategy() {
        Ok(directories) => Some(directories.cache_dir().join("admit")),
        Err(error) => {
            info!(%error, "compiled components are not cached: the user has no home directory");
            None
        }
    }
}

fn configure_command(args: CommandArgs, wire: Wire) -> NativeCommand {
    let mut command = NativeCommand::new(args.command).wire(wire);
    if args.inherit_env {
        command = command.inherit_environment();
    }
    for Variable { name, value } in args.env {
        match value.or_else(|| env::var_os(&name)) {
            Some(value) => command = command.env(name, value),
            None => warn!(
                ?name,
                "the variable is not set, so the plugin does not get it"
            ),
        }
    }
    command
}
