//! The options of a plugin, which is a component or a command.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use admission_host::Wire;
use bytesize::ByteSize;
use clap::Args;
use clap::builder::{OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};

/// Smallest memory limit of a component, in bytes: one page of WebAssembly.
const MIN_MEMORY: u64 = 64 << 10;

/// Largest memory limit of a component, in bytes: the address space of 32 bits.
const MAX_MEMORY: u64 = 4 << 30;

/// The options that only a component has, by their IDs.
pub(super) const COMPONENT_OPTIONS: [&str; 4] =
    ["cache_dir", "no_cache", "memory_limit", "cpu_limit"];

/// A timeout; `None` disables it.
///
/// The alias hides the `Option` from clap, which would make the argument optional.
pub(crate) type Timeout = Option<Duration>;

#[derive(Debug, Args)]
pub(crate) struct PluginArgs {
    /// Time that the plugin may take for one check, such as 500ms; `none` disables the timeout.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_timeout)]
    pub(crate) timeout: Timeout,
    #[command(flatten)]
    pub(crate) component: ComponentArgs,
    #[command(flatten)]
    pub(crate) command: CommandArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "A component as the plugin")]
pub(crate) struct ComponentArgs {
    /// Uses this WASI component as the plugin, instead of COMMAND.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["env", "inherit_env", "wire"])]
    pub(crate) component: Option<PathBuf>,
    /// Caches compiled components in this directory [default: the user's cache directory].
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Compiles the component each time, without a cache.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Memory that the component may have, such as 128MiB; from 64KiB to 4GiB [default: 64MiB].
    #[arg(long, value_name = "SIZE", value_parser = parse_memory_limit)]
    pub(crate) memory_limit: Option<u64>,
    /// CPU time that the component may use without yielding to the host, such as 30s
    /// [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = parse_cpu_limit)]
    pub(crate) cpu_limit: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "A command as the plugin")]
pub(crate) struct CommandArgs {
    /// Passes an environment variable to the plugin; without `=VALUE`, it passes admit's own
    /// value. Can be repeated.
    ///
    /// Otherwise a plugin gets PATH, HOME, LANG and TZ, and no other variable.
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = OsStringValueParser::new().try_map(parse_variable))]
    pub(crate) env: Vec<Variable>,
    /// Passes the whole environment to the plugin, including any secrets in it.
    #[arg(long)]
    pub(crate) inherit_env: bool,
    /// How the plugin and admit exchange messages [default: stdio].
    #[arg(long, value_parser = wire_parser())]
    pub(crate) wire: Option<Wire>,
    /// The program to use as the plugin, and its arguments.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "component", conflicts_with_all = COMPONENT_OPTIONS)]
    pub(crate) command: Vec<OsString>,
}

/// An environment variable for the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: OsString,
    /// `None` passes the value that this process has.
    pub(crate) value: Option<OsString>,
}

impl PluginArgs {
    /// Returns whether neither a component nor a command is given.
    pub(super) fn is_missing(&self) -> bool {
        self.component.component.is_none() && self.command.command.is_empty()
    }
}

fn wire_parser() -> impl TypedValueParser<Value = Wire> {
    let stdio = PossibleValue::new("stdio")
        .help("Frames on stdin and stdout, for plugins built with the SDK");
    let grpc = PossibleValue::new("grpc").help("gRPC on localhost, for plugins made for `cipd`");
    PossibleValuesParser::new([stdio, grpc]).map(|wire| match &*wire {
        "grpc" => Wire::Grpc,
        _ => Wire::Stdio,
    })
}

fn parse_timeout(timeout: &str) -> Result<Timeout, String> {
    if timeout == "none" {
        return Ok(None);
    }
    match humantime::parse_duration(timeout) {
        Ok(Duration::ZERO) => Err("must be more than 0; `none` disables the timeout".into()),
        timeout => timeout.map(Some).map_err(|error| error.to_string()),
    }
}

fn parse_cpu_limit(limit: &str) -> Result<Duration, String> {
    match humantime::parse_duration(limit) {
        Ok(Duration::ZERO) => Err("must be more than 0".into()),
        limit => limit.map_err(|error| error.to_string()),
    }
}

fn parse_memory_limit(size: &str) -> Result<u64, String> {
    let ByteSize(bytes) = size.parse()?;
    if (MIN_MEMORY..=MAX_MEMORY).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("must be from 64KiB to 4GiB".into())
    }
}

fn parse_variable(variable: OsString) -> Result<Variable, &'static str> {
    let mut parts = variable.as_bytes().splitn(2, |&byte| byte == b'=');
    let mut next = || parts.next().map(|part| OsStr::from_bytes(part).to_owned());
    match next().filter(|name| !name.is_empty()) {
        Some(name) => Ok(Variable {
            name,
            value: next(),
        }),
        None => Err("must begin with the name of a variable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_of_0_is_refused_and_none_disables_the_timeout() {
        assert_eq!(parse_timeout("none"), Ok(None));
        assert_eq!(
            parse_timeout("1500ms"),
            Ok(Some(Duration::from_millis(1500)))
        );
        for zero in ["0", "0s"] {
            assert_eq!(
                parse_timeout(zero),
                Err("must be more than 0; `none` disables the timeout".into())
            );
        }
        assert!(parse_timeout("None").is_err() && parse_timeout("").is_err());
    }

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

    #[test]
    fn a_variable_has_a_name_and_may_have_a_value() {
        let variable = |name: &str, value: Option<&str>| {
            let (name, value) = (name.into(), value.map(Into::into));
            Ok(Variable { name, value })
        };
        assert_eq!(parse_variable("A=b=c".into()), variable("A", Some("b=c")));
        assert_eq!(parse_variable("A=".into()), variable("A", Some("")));
        assert_eq!(parse_variable("A".into()), variable("A", None));
        assert!(parse_variable("=x".into()).is_err());
        assert!(parse_variable("".into()).is_err());
    }
}
