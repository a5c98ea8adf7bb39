//! The options of the one plugin, which is a component or a command.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, ValueEnum};

/// Smallest memory a component can be given: one page of WebAssembly.
const LEAST_MEMORY: u64 = 64 << 10;

/// Largest memory a component can be given: all that 32 bits can address.
const MOST_MEMORY: u64 = 4 << 30;

/// The one plugin to ask.
#[derive(Debug)]
pub(crate) enum PluginArgs {
    Given(GivenPlugin),
    /// What `cipd` is configured to ask, as `cipd` asks: over gRPC, and with the whole
    /// environment.
    FromCipdConfig {
        env: Vec<Variable>,
    },
}

/// A plugin that the command line names.
#[derive(Debug)]
pub(crate) enum GivenPlugin {
    Command {
        argv: Vec<OsString>,
        wire: Wire,
        env: Vec<Variable>,
        inherit_env: bool,
    },
    Component {
        file: PathBuf,
        cache: Cache,
        memory_limit: Option<u64>,
        cpu_limit: Option<Duration>,
    },
}

/// How a command is talked to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wire {
    /// Frames on stdin and stdout, as plugins built with the SDK talk.
    #[default]
    Stdio,
    /// gRPC on localhost, as the plugins of `cipd` talk.
    Grpc,
}

/// Where compiled components are kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    None,
    UserFolder,
    Folder(PathBuf),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "A component as the plugin")]
pub(super) struct ComponentArgs {
    /// The WASI component to ask, instead of COMMAND.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
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

#[derive(Debug, Args)]
#[command(next_help_heading = "A command as the plugin")]
pub(super) struct CommandArgs {
    /// Passes one more environment variable; without a value, the one that admit has.
    ///
    /// A plugin sees PATH, HOME, LANG and TZ, and nothing else of the environment.
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = OsStringValueParser::new().try_map(parse_variable))]
    env: Vec<Variable>,
    /// Passes the whole environment, whatever secrets it holds.
    #[arg(long)]
    inherit_env: bool,
    /// How to talk to the plugin; stdio by default.
    #[arg(long, value_enum)]
    wire: Option<Wire>,
    /// The program to ask, and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// An environment variable for the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: OsString,
    /// `None` takes the value that this process has.
    pub(crate) value: Option<OsString>,
}

/// Settles on the one plugin, and refuses options that are for the other kind.
pub(super) fn choose(
    component: ComponentArgs,
    command: CommandArgs,
) -> Result<GivenPlugin, String> {
    match (component.component.clone(), command.command.is_empty()) {
        (Some(_), false) => {
            Err("one plugin at a time: --component FILE or a COMMAND, not both".into())
        }
        (None, true) => {
            Err("no plugin to ask: pass a COMMAND after `--`, or --component FILE".into())
        }
        (Some(file), true) => component.into_plugin(file, &command),
        (None, false) => command.into_plugin(&component),
    }
}

/// Settles on the one plugin that is to judge for another client.
pub(super) fn choose_to_relay(
    component: ComponentArgs,
    command: CommandArgs,
) -> Result<GivenPlugin, String> {
    // Over gRPC a metadata call does not say for which check it is, so it could not be
    // passed on as a call for that check.
    if command.wire == Some(Wire::Grpc) {
        return Err(
            "--wire grpc is not for cipd-plugin: a COMMAND that talks gRPC can be the client's plugin itself"
                .into(),
        );
    }
    choose(component, command)
}

/// Settles on the plugin of `cipd`, and refuses options that are for other plugins.
pub(super) fn choose_from_cipd_config(
    component: ComponentArgs,
    command: CommandArgs,
) -> Result<PluginArgs, String> {
    if component.component.is_some() || !command.command.is_empty() {
        return Err(
            "one plugin at a time: --from-cipd-config, --component FILE or a COMMAND".into(),
        );
    }
    component.refuse()?;
    if command.wire == Some(Wire::Stdio) {
        return Err("--from-cipd-config asks as cipd does, which is with --wire grpc".into());
    }
    Ok(PluginArgs::FromCipdConfig { env: command.env })
}

impl ComponentArgs {
    fn into_plugin(self, file: PathBuf, command: &CommandArgs) -> Result<GivenPlugin, String> {
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

    fn refuse(&self) -> Result<(), String> {
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

impl CommandArgs {
    fn into_plugin(self, component: &ComponentArgs) -> Result<GivenPlugin, String> {
        component.refuse()?;
        Ok(GivenPlugin::Command {
            argv: self.command,
            wire: self.wire.unwrap_or_default(),
            env: self.env,
            inherit_env: self.inherit_env,
        })
    }

    /// Names the first option that was given beside the command itself, and why a
    /// component does without.
    fn given(&self) -> Option<(&'static str, &'static str)> {
        const NO_ENVIRONMENT: &str = "which gets no environment";
        [
            ("--env", !self.env.is_empty(), NO_ENVIRONMENT),
            ("--inherit-env", self.inherit_env, NO_ENVIRONMENT),
            (
                "--wire",
                self.wire.is_some(),
                "which is always talked to in the same way",
            ),
        ]
        .into_iter()
        .find_map(|(option, given, why)| given.then_some((option, why)))
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

fn parse_variable(variable: OsString) -> Result<Variable, &'static str> {
    let bytes = variable.as_bytes();
    let (name, value) = match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) => (
            &bytes[..at],
            Some(OsString::from_vec(bytes[at + 1..].to_vec())),
        ),
        None => (bytes, None),
    };
    if name.is_empty() {
        return Err("must begin with the name of a variable");
    }
    Ok(Variable {
        name: OsString::from_vec(name.to_vec()),
        value,
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::args::{Cli, Command};

    fn plugin(args: &[&str]) -> Result<PluginArgs, String> {
        let line = ["admit", "check"].iter().chain(args);
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        let Command::Check(args) = cli.command else {
            unreachable!("the line begins with `check`");
        };
        let job = args.into_job().map_err(|error| error.to_string())?;
        Ok(job.plugin)
    }

    fn first_line(refused: Result<PluginArgs, String>) -> String {
        let text = refused.expect_err("it should be refused");
        text.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn there_is_exactly_one_plugin() {
        assert_eq!(
            first_line(plugin(&["--no-cache"])),
            "error: no plugin to ask: pass a COMMAND after `--`, or --component FILE"
        );
        assert_eq!(
            first_line(plugin(&["--component", "p.wasm", "--", "./p"])),
            "error: one plugin at a time: --component FILE or a COMMAND, not both"
        );
        for other in [&["--component", "p.wasm"][..], &["--", "./p"]] {
            assert_eq!(
                first_line(plugin(&[&["--from-cipd-config"], other].concat())),
                "error: one plugin at a time: --from-cipd-config, --component FILE or a COMMAND"
            );
        }
    }

    #[test]
    fn an_option_for_the_other_kind_of_plugin_is_refused() {
        for option in [
            "--no-cache",
            "--cache-dir=x",
            "--memory-limit=1MiB",
            "--cpu-limit=1s",
        ] {
            let name = option.split('=').next().unwrap_or_default();
            assert_eq!(
                first_line(plugin(&[option, "--", "./p"])),
                format!("error: {name} is for a component, but the plugin is a COMMAND")
            );
        }
        for option in ["--inherit-env", "--env=A"] {
            let name = option.split('=').next().unwrap_or_default();
            assert_eq!(
                first_line(plugin(&[option, "--component", "p.wasm"])),
                format!(
                    "error: {name} is for a COMMAND, but the plugin is a component, which gets no environment"
                )
            );
        }
    }

    #[test]
    fn a_command_is_asked_over_stdio_unless_it_is_said_otherwise() {
        let wire = |args: &[&str]| match plugin(args) {
            Ok(PluginArgs::Given(GivenPlugin::Command { wire, .. })) => wire,
            other => panic!("not a command: {other:?}"),
        };
        assert_eq!(wire(&["--", "./p"]), Wire::Stdio);
        assert_eq!(wire(&["--wire", "stdio", "--", "./p"]), Wire::Stdio);
        assert_eq!(wire(&["--wire", "grpc", "--", "./p"]), Wire::Grpc);
        assert_eq!(
            first_line(plugin(&["--wire", "grpc", "--component", "p.wasm"])),
            "error: --wire is for a COMMAND, but the plugin is a component, which is always talked to in the same way"
        );
    }

    #[test]
    fn the_plugin_of_cipd_may_have_more_variables_but_no_other_wire() {
        let from_cipd_config = |args: &[&str]| plugin(&[&["--from-cipd-config"], args].concat());
        for more in [
            &["--env", "A=b"][..],
            &["--env=A=b", "--inherit-env", "--wire", "grpc"],
        ] {
            let Ok(PluginArgs::FromCipdConfig { env }) = from_cipd_config(more) else {
                panic!("{more:?} is fine");
            };
            assert_eq!(env.len(), 1);
        }
        assert_eq!(
            first_line(from_cipd_config(&["--wire", "stdio"])),
            "error: --from-cipd-config asks as cipd does, which is with --wire grpc"
        );
        assert_eq!(
            first_line(from_cipd_config(&["--no-cache"])),
            "error: --no-cache is for a component, but the plugin is a COMMAND"
        );
    }

    #[test]
    fn what_stands_after_the_dashes_is_the_commands() {
        let command = plugin(&["--env", "A=b=c", "--env", "D", "--", "./p", "--env", "-v"]);
        let Ok(PluginArgs::Given(GivenPlugin::Command { argv, env, .. })) = command else {
            panic!("not a command: {command:?}");
        };
        assert_eq!(argv, ["./p", "--env", "-v"]);
        let variable = |name: &str, value: Option<&str>| Variable {
            name: name.into(),
            value: value.map(Into::into),
        };
        assert_eq!(env, [variable("A", Some("b=c")), variable("D", None)]);
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
    fn a_variable_without_a_name_is_refused() {
        assert!(parse_variable("=x".into()).is_err());
        assert!(parse_variable("".into()).is_err());
    }
}
