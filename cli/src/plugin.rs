//! From the options of a plugin to what the host starts.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use admission_host::{Component, NativeCommand, Source};
use anyhow::{Context as _, bail};
use etcetera::BaseStrategy as _;
use tracing::{info, warn};

use crate::args::{Cache, PluginArgs, Variable};
use crate::hint::Kind;

/// The first argument of this program when it is the guard of a plugin. Not an option of
/// the command line: a guard must do its work before anything else is done.
pub(crate) const GUARD: &str = "--guard-of-a-plugin";

/// A plugin that can be started, and where its compiled form is kept.
pub(crate) struct Chosen {
    pub(crate) source: Source,
    pub(crate) kind: Kind,
    pub(crate) component_cache: Option<PathBuf>,
}

/// Turns options into a plugin that can be started, and starts nothing.
///
/// # Errors
///
/// If the component's file cannot be opened.
pub(crate) fn choose(args: PluginArgs) -> anyhow::Result<Chosen> {
    match args {
        PluginArgs::Command {
            argv,
            env,
            inherit_env,
        } => Ok(Chosen {
            source: Source::from(command(argv, env, inherit_env)),
            kind: Kind::Command,
            component_cache: None,
        }),
        PluginArgs::Component {
            file,
            cache,
            memory_limit,
            cpu_limit,
        } => {
            look_at(&file)?;
            let mut component = Component::from_file(file);
            if let Some(bytes) = memory_limit {
                component = component.memory_limit(bytes);
            }
            if let Some(limit) = cpu_limit {
                component = component.cpu_limit(limit);
            }
            Ok(Chosen {
                source: Source::from(component),
                kind: Kind::Component,
                component_cache: cache_folder(cache),
            })
        }
    }
}

fn command(argv: Vec<OsString>, env: Vec<Variable>, inherit_env: bool) -> NativeCommand {
    let mut command = NativeCommand::new(argv);
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
fn look_at(component: &Path) -> anyhow::Result<()> {
    let file = File::open(component)
        .and_then(|file| file.metadata())
        .with_context(|| format!("cannot read the component `{}`", component.display()))?;
    if !file.is_file() {
        bail!("the component `{}` is not a file", component.display());
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
