//! The options of the one plugin, which is a component or a command.

mod command;
mod component;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub(super) use command::CommandArgs;
pub(crate) use command::{Variable, Wire};
pub(crate) use component::Cache;
pub(super) use component::ComponentArgs;

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
}
