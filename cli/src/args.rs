//! The command line, and the job it describes.

mod metadata;
mod plugin;

use std::path::PathBuf;
use std::time::Duration;

use admission_host::Pin;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use metadata::MetadataArgs;
pub(crate) use metadata::{Access, Identity, Metadata};
pub(crate) use plugin::{Cache, GivenPlugin, PluginArgs, Variable, Wire};
use plugin::{CommandArgs, ComponentArgs};

use crate::input::Platform;
use crate::service_url::ServiceUrl;

const AFTER_HELP: &str = "\
Exit status: 0 if every pin was admitted, 1 if some were denied, 2 if anything failed; 130 after
SIGINT, such as from Ctrl-C, and 143 after SIGTERM.

Examples:
  admit check infra/tools/bb/linux-amd64:4OSKfQ...C --metadata meta.json -- ./policy
  admit check --resolved-versions cipd.versions --component policy.wasm
  admit check --ensure-file cipd.ensure --component policy.wasm
  admit check --ensure-file cipd.ensure --from-cipd-config
  admit check --pins internal.txt --auth-token-command 'luci-auth token' -- ./policy
  list-pins | admit check --pins - --offline --format json -- ./policy --strict";

const CIPD_PLUGIN_AFTER_HELP: &str = "\
Exit status: 0 when the client has ended stdin, 1 if the conversation with it broke off, 2 if the
command line makes no sense. What is wrong with the plugin is the answer to the client's checks.

Examples:
  CIPD_ADMISSION_PLUGIN='[\"admit\", \"cipd-plugin\", \"--component\", \"policy.wasm\"]' cipd ensure ...
  CIPD_ADMISSION_PLUGIN='[\"admit\", \"cipd-plugin\", \"--\", \"./policy\", \"--strict\"]' cipd ensure ...";

/// Asks a CIPD admission plugin whether pins may be deployed.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Asks one plugin about pins and prints what it says about each.
    ///
    /// The plugin is a COMMAND, named after `--`, a WASI component, or what `cipd` is
    /// configured to ask. The pins are those of the command line, then those of
    /// --ensure-file, then those of --resolved-versions, then those of --pins.
    #[command(after_help = AFTER_HELP)]
    Check(Box<CheckArgs>),
    /// Is the admission plugin of another client, such as `cipd`, and lets a plugin judge.
    ///
    /// The plugin is a COMMAND, named after `--`, or a WASI component. It is asked about each
    /// package that the client asks about, and its answers and log lines become the client's.
    #[command(after_help = CIPD_PLUGIN_AFTER_HELP)]
    CipdPlugin(Box<CipdPluginArgs>),
}

/// What is shown on the terminal, and how.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct TerminalArgs {
    /// Logs more: -v what happens, -vv every detail; plugins are asked for the same.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Says nothing on stderr but errors.
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Color,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal only.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Format {
    /// One aligned line a pin, for people.
    #[default]
    Text,
    /// One JSON object a line, for programs.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pins: PinArgs,
    #[command(flatten)]
    asking: AskingArgs,
    #[command(flatten)]
    terminal: TerminalArgs,
    #[command(flatten)]
    metadata: MetadataArgs,
    #[command(flatten)]
    component: ComponentArgs,
    #[command(flatten)]
    command: CommandArgs,
    /// Asks the plugin that cipd is configured to ask, instead of COMMAND.
    ///
    /// That is the one of CIPD_ADMISSION_PLUGIN, else of CIPD_CONFIG_FILE, which is
    /// /etc/chrome-infra/cipd.cfg by default. Implies --wire grpc and --inherit-env.
    #[arg(long, help_heading = "A command as the plugin")]
    from_cipd_config: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CipdPluginArgs {
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    component: ComponentArgs,
    #[command(flatten)]
    command: CommandArgs,
}

/// Where the pins come from.
#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    /// Pins to check: package:instance_id.
    #[arg(value_name = "PIN")]
    pub(crate) pins: Vec<Pin>,
    /// Checks what a CIPD ensure file deploys; can be repeated; '-' is stdin.
    ///
    /// Versions are resolved offline: they must be instance IDs, or be found in the
    /// $ResolvedVersions file.
    #[arg(long = "ensure-file", value_name = "FILE")]
    pub(crate) ensure_files: Vec<PathBuf>,
    /// The ${os}-${arch} of ensure files, such as mac-arm64; this machine's by default.
    #[arg(long, value_name = "OS-ARCH", requires = "ensure_files")]
    pub(crate) platform: Option<Platform>,
    /// Checks all pins of a CIPD resolved-versions file; '-' is stdin.
    #[arg(long, value_name = "FILE")]
    pub(crate) resolved_versions: Option<PathBuf>,
    /// Checks the pins of a file, one package:instance_id a line; '-' is stdin.
    #[arg(long = "pins", id = "pins_file", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// How to ask, and how to tell.
#[derive(Debug, Args)]
pub(crate) struct AskingArgs {
    /// The CIPD service that the pins belong to, as plugins are told; it is asked for the
    /// metadata that they want.
    ///
    /// By default that of the ensure files; with --from-cipd-config, else that of
    /// CIPD_SERVICE_URL; else https://chrome-infra-packages.appspot.com.
    #[allow(
        rustdoc::bare_urls,
        reason = "this is the help, which would show the brackets"
    )]
    #[arg(long, value_name = "URL")]
    pub(crate) service_url: Option<ServiceUrl>,
    #[command(flatten)]
    pub(crate) patience: Patience,
    /// How to print the outcomes.
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    pub(crate) format: Format,
}

/// How long to wait.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Patience {
    /// How long the plugin may take over one check, such as 500ms; 0 is for ever.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
}

/// What `check` is asked for, once its command line makes sense as a whole.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) pins: PinArgs,
    pub(crate) asking: AskingArgs,
    pub(crate) terminal: TerminalArgs,
    pub(crate) metadata: Metadata,
    pub(crate) plugin: PluginArgs,
}

impl CheckArgs {
    /// Makes sense of the command line as a whole.
    pub(crate) fn into_job(self) -> Result<Job, clap::Error> {
        let plugin = if self.from_cipd_config {
            plugin::choose_from_cipd_config(self.component, self.command)
        } else {
            plugin::choose(self.component, self.command).map(PluginArgs::Given)
        };
        Ok(Job {
            pins: self.pins,
            asking: self.asking,
            terminal: self.terminal,
            metadata: self.metadata.choose(),
            plugin: plugin.map_err(|text| misuse("check", text))?,
        })
    }
}

/// What `cipd-plugin` is asked for, once its command line makes sense as a whole.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) patience: Patience,
    pub(crate) plugin: GivenPlugin,
}

impl CipdPluginArgs {
    /// Makes sense of the command line as a whole.
    pub(crate) fn into_service(self) -> Result<Service, clap::Error> {
        Ok(Service {
            patience: self.patience,
            plugin: plugin::choose_to_relay(self.component, self.command)
                .map_err(|text| misuse("cipd-plugin", text))?,
        })
    }
}

/// Says what is wrong with the command line of `subcommand`, and how it is used.
fn misuse(subcommand: &str, text: String) -> clap::Error {
    let mut admit = Cli::command();
    admit.build();
    let subcommand = admit
        .find_subcommand_mut(subcommand)
        .expect("it is the command being run");
    subcommand.error(ErrorKind::ArgumentConflict, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_is_taken_by_a_command_that_would_ignore_it() {
        for option in ["--verbose", "--quiet", "--color=never", "--offline"] {
            for (command, is_taken) in [("check", true), ("cipd-plugin", false)] {
                let line = ["admit", command, option, "--", "./p"];
                let taken = Cli::try_parse_from(line);
                assert_eq!(taken.is_ok(), is_taken, "{command} {option}");
            }
        }
    }
}
