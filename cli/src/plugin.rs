//! From the options of a plugin to what the host starts.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;

use admission_host::{Component, Host, HostOptions, NativeCommand, Plugin, PluginOptions, Source};
use admission_proto::escape;
use anyhow::{Context as _, bail};
use etcetera::BaseStrategy as _;
use tracing::{info, warn};

use crate::args::{Cache, GivenPlugin, Patience, PluginArgs, Variable, Wire};
use crate::cipd_config::CipdConfig;
use crate::hint::PluginKind;
use crate::service_url::ServiceUrl;
use crate::terminal::Terminal;

/// The first argument of this program when it is the guard of a plugin. Not an option of
/// the command line: a guard must do its work before anything else is done.
pub(crate) const GUARD: &str = "--guard-of-a-plugin";

/// A plugin that can be started, and where its compiled form is kept.
pub(crate) struct Chosen {
    pub(crate) source: Source,
    pub(crate) kind: PluginKind,
    pub(crate) component_cache: Option<PathBuf>,
    /// The service whose pins are judged, as far as it comes with the plugin.
    pub(crate) service_url: Option<ServiceUrl>,
}

/// Turns options into a plugin that can be started, and starts nothing.
///
/// # Errors
///
/// If the component's file cannot be opened, or if `cipd` has no plugin or is badly
/// configured.
pub(crate) fn choose(args: PluginArgs, terminal: &Terminal) -> anyhow::Result<Chosen> {
    match args {
        PluginArgs::Given(given) => {
            look_at(&given)?;
            Ok(choose_given(given))
        }
        PluginArgs::FromCipdConfig { env } => {
            let config = CipdConfig::load()?;
            terminal.note(&escape(&format!(
                "asking `{}`, which {} names, with --wire grpc and --inherit-env, as cipd does",
                config.argv[0].display(),
                config.origin
            )));
            Ok(Chosen {
                kind: PluginKind::CommandOfCipd,
                service_url: config.service_url,
                ..native(config.argv, Wire::Grpc, env, true)
            })
        }
    }
}

/// Turns the options of a plugin that was given into one that can be started, whether or
/// not there is such a file.
pub(crate) fn choose_given(args: GivenPlugin) -> Chosen {
    match args {
        GivenPlugin::Command {
            argv,
            wire,
            env,
            inherit_env,
        } => native(argv, wire, env, inherit_env),
        GivenPlugin::Component {
            file,
            cache,
            memory_limit,
            cpu_limit,
        } => {
            let mut component = Component::from_file(file);
            if let Some(bytes) = memory_limit {
                component = component.memory_limit(bytes);
            }
            if let Some(limit) = cpu_limit {
                component = component.cpu_limit(limit);
            }
            Chosen {
                source: Source::from(component),
                kind: PluginKind::Component,
                component_cache: cache_folder(cache),
                service_url: None,
            }
        }
    }
}

impl Chosen {
    /// Prepares the plugin, and a host that is made from `options` otherwise, and starts
    /// nothing.
    pub(crate) fn prepare(self, options: HostOptions, patience: Patience) -> (Host, Plugin) {
        let mut options = options
            .guard("/proc/self/exe", [GUARD])
            .name_and_version(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        if let Some(folder) = self.component_cache {
            options = options.component_cache(folder);
        }
        let mut limits = PluginOptions::default();
        if !patience.timeout.is_zero() {
            limits = limits.check_timeout(patience.timeout);
        }
        let host = Host::new(options);
        let plugin = host.plugin_with_options(self.source, limits);
        (host, plugin)
    }
}

fn native(argv: Vec<OsString>, wire: Wire, env: Vec<Variable>, inherit_env: bool) -> Chosen {
    Chosen {
        source: Source::from(command(argv, wire, env, inherit_env)),
        kind: PluginKind::Command(wire),
        component_cache: None,
        service_url: None,
    }
}

fn command(
    argv: Vec<OsString>,
    wire: Wire,
    env: Vec<Variable>,
    inherit_env: bool,
) -> NativeCommand {
    let mut command = NativeCommand::new(argv).wire(match wire {
        Wire::Stdio => admission_host::Wire::Stdio,
        Wire::Grpc => admission_host::Wire::Grpc,
    });
    if inherit_env {
        command = command.inherit_environment();
    }
    for Variable { name, value } in env {
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

/// Finds out now, before anything is started, that there is no such file.
fn look_at(args: &GivenPlugin) -> anyhow::Result<()> {
    let GivenPlugin::Component { file: path, .. } = args else {
        return Ok(());
    };
    let file = File::open(path)
        .and_then(|file| file.metadata())
        .with_context(|| format!("cannot read the component `{}`", path.display()))?;
    if !file.is_file() {
        bail!("the component `{}` is not a file", path.display());
    }
    Ok(())
}

fn cache_folder(cache: Cache) -> Option<PathBuf> {
    match cache {
        Cache::None => None,
        Cache::Folder(folder) => Some(folder),
        Cache::UserFolder => match etcetera::choose_base_strategy() {
            Ok(folders) => Some(folders.cache_dir().join("admit")),
            Err(error) => {
                info!(%error, "compiled components are not kept: the user has no home folder");
                None
            }
        },
    }
}
