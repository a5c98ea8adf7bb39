//! The options of a component as the plugin.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;

use super::{CommandArgs, GivenPlugin};

/// Smallest memory a component can be given: one page of WebAssembly.
const LEAST_MEMORY: u64 = 64 << 10;

/// Largest memory a component can be given: all that 32 bits can address.
const MOST_MEMORY: u64 = 4 << 30;

/// Where compiled components are kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    None,
    UserFolder,
    Folder(PathBuf),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "A component as the plugin")]
pub(in crate::args) struct ComponentArgs {
    /// The WASI component to ask, instead of COMMAND.
    #[arg(long, value_name = "FILE")]
    pub(super) component: Option<PathBuf>,
    /// Folder for compiled components; the user's cache folder by default.
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache_dir: Option<PathBuf>,
    /// Compiles the component anew.
    #[arg(long)]
    no_cache: bool,
    /// Most memory the component may have, such as 128MiB; 64MiB by default.
    #[arg(long, value_name = "SIZE", value_parser = parse_memory_limit)]
    memory_limit: Option<u64>,
    /// Most CPU time the component may use before it pauses, such as 30s; 10s by default.
    #[arg(long, value_name = "DURATION", value_parser = parse_cpu_limit)]
    cpu_limit: Option<Duration>,
}

impl ComponentArgs {
    pub(super) fn into_plugin(
        self,
        file: PathBuf,
        command: &CommandArgs,
    ) -> Result<GivenPlugin, String> {
        if let Some((option, why)) = command.given() {
            return Err(format!(
                "{option} is for a COMMAND, but the plugin is a component, {why}"
            ));
        }
        Ok(GivenPlugin::Component {
            file,
            cache: match self.cache_dir {
                Some(folder) => Cache::Folder(folder),
                None if self.no_cache => Cache::None,
                None => Cache::UserFolder,
            },
            memory_limit: self.memory_limit,
            cpu_limit: self.cpu_limit,
        })
    }

    pub(super) fn refuse(&self) -> Result<(), String> {
        match self.given() {
            Some(option) => Err(format!(
                "{option} is for a component, but the plugin is a COMMAND"
            )),
            None => Ok(()),
        }
    }

    /// Names the first option that was given beside the component itself.
    fn given(&self) -> Option<&'static str> {
        [
            ("--cache-dir", self.cache_dir.is_some()),
            ("--no-cache", self.no_cache),
            ("--memory-limit", self.memory_limit.is_some()),
            ("--cpu-limit", self.cpu_limit.is_some()),
        ]
        .into_iter()
        .find_map(|(option, given)| given.then_some(option))
    }
}

fn parse_memory_limit(size: &str) -> Result<u64, String> {
    let ByteSize(bytes) = size.parse()?;
    if (LEAST_MEMORY..=MOST_MEMORY).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("must be from 64KiB to 4GiB".into())
    }
}

fn parse_cpu_limit(duration: &str) -> Result<Duration, String> {
    let limit = humantime::parse_duration(duration).map_err(|error| error.to_string())?;
    if limit.is_zero() {
        return Err("must be more than 0".into());
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_units_and_bounds() {
        assert_eq!(parse_memory_limit("64MiB"), Ok(64 << 20));
        assert_eq!(parse_memory_limit("65536"), Ok(64 << 10));
        for absurd in ["0", "1KiB", "5GiB", "99999999999999999999EiB"] {
            assert_eq!(
                parse_memory_limit(absurd),
                Err("must be from 64KiB to 4GiB".into())
            );
        }
        assert!(parse_memory_limit("much").is_err());
        assert_eq!(parse_cpu_limit("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_cpu_limit("0"), Err("must be more than 0".into()));
    }
}
