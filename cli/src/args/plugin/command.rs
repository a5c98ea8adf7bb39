//! The options of a command as the plugin.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, ValueEnum};

use super::{ComponentArgs, GivenPlugin};

/// How a command is talked to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wire {
    /// Frames on stdin and stdout, as plugins built with the SDK talk.
    #[default]
    Stdio,
    /// gRPC on localhost, as the plugins of `cipd` talk.
    Grpc,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "A command as the plugin")]
pub(in crate::args) struct CommandArgs {
    /// Passes one more environment variable; without a value, the one that admit has.
    ///
    /// A plugin sees PATH, HOME, LANG and TZ, and nothing else of the environment.
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = OsStringValueParser::new().try_map(parse_variable))]
    pub(super) env: Vec<Variable>,
    /// Passes the whole environment, whatever secrets it holds.
    #[arg(long)]
    inherit_env: bool,
    /// How to talk to the plugin; stdio by default.
    #[arg(long, value_enum)]
    pub(super) wire: Option<Wire>,
    /// The program to ask, and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

/// An environment variable for the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: OsString,
    /// `None` takes the value that this process has.
    pub(crate) value: Option<OsString>,
}

impl CommandArgs {
    pub(super) fn into_plugin(self, component: &ComponentArgs) -> Result<GivenPlugin, String> {
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
    pub(super) fn given(&self) -> Option<(&'static str, &'static str)> {
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
    use super::*;

    #[test]
    fn a_variable_without_a_name_is_refused() {
        assert!(parse_variable("=x".into()).is_err());
        assert!(parse_variable("".into()).is_err());
    }
}
