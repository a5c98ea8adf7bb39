//! The command line.

mod plugin;

use std::ffi::OsString;
use std::path::PathBuf;

use admission_host::{Pin, Wire};
use admission_proto::ServiceUrl;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use self::plugin::COMPONENT_OPTIONS;
pub(crate) use self::plugin::{CommandArgs, ComponentArgs, PluginArgs, Timeout, Variable};
use crate::platform::Platform;

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
Exit status: 0 when the client has closed stdin, 1 if the session with the client failed, 2 if the
command line is wrong. If the policy fails, the client's checks fail with the reason.

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
    /// Checks pins with one plugin and prints the outcome of each.
    ///
    /// The plugin is a COMMAND after `--`, a WASI component, or the plugin that `cipd` is
    /// configured to use. The pins of the command line come first, then those of
    /// --ensure-file, --resolved-versions and --pins.
    #[command(after_help = AFTER_HELP)]
    Check(Box<CheckArgs>),
    /// Acts as the admission plugin of another client, such as `cipd`, and forwards its checks to a policy.
    ///
    /// The policy is a COMMAND after `--`, or a WASI component. The client gets its verdicts
    /// and its log lines.
    #[command(after_help = CIPD_PLUGIN_AFTER_HELP)]
    CipdPlugin(Box<CipdPluginArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) pins: PinArgs,
    /// URL of the CIPD service that the pins belong to. Plugins get this URL, and
    /// metadata comes from this service.
    ///
    /// The default is the $ServiceURL of the ensure files; without one, CIPD_SERVICE_URL if
    /// --from-cipd-config is given; otherwise https://chrome-infra-packages.appspot.com.
    #[allow(
        rustdoc::bare_urls,
        reason = "this is the help, which would show the brackets"
    )]
    #[arg(long, value_name = "URL")]
    pub(crate) service_url: Option<ServiceUrl>,
    #[command(flatten)]
    pub(crate) plugin: PluginArgs,
    /// Uses the plugin that `cipd` is configured to use, instead of COMMAND.
    ///
    /// CIPD_ADMISSION_PLUGIN names it, or otherwise the file CIPD_CONFIG_FILE, which is
    /// /etc/chrome-infra/cipd.cfg by default. Implies --wire grpc and --inherit-env.
    #[arg(
        long,
        help_heading = "A command as the plugin",
        conflicts_with_all = ["component", "command"],
        conflicts_with_all = COMPONENT_OPTIONS
    )]
    pub(crate) from_cipd_config: bool,
    /// Format of the outcomes on stdout.
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) terminal: TerminalArgs,
    #[command(flatten)]
    pub(crate) metadata: MetadataArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CipdPluginArgs {
    #[command(flatten)]
    pub(crate) plugin: PluginArgs,
}

/// The options that name pins.
#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    /// Checks these pins: package:instance_id.
    #[arg(value_name = "PIN")]
    pub(crate) pins: Vec<Pin>,
    /// Checks the pins that a CIPD ensure file deploys; `-` is stdin. Can be repeated.
    ///
    /// Versions are resolved offline: each must be an instance ID, or be in the
    /// $ResolvedVersions file.
    #[arg(long = "ensure-file", value_name = "FILE")]
    pub(crate) ensure_files: Vec<PathBuf>,
    /// Platform whose packages of the ensure files are checked, such as mac-arm64
    /// [default: the platform of this machine].
    #[arg(long, value_name = "OS-ARCH", requires = "ensure_files")]
    pub(crate) platform: Option<Platform>,
    /// Checks all pins of a CIPD resolved-versions file; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    pub(crate) resolved_versions: Option<PathBuf>,
    /// Checks the pins in a file, one package:instance_id per line; `-` is stdin.
    #[arg(long = "pins", id = "pins_file", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// The options of the output on a terminal.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct TerminalArgs {
    /// Logs more to stderr: -v events, -vv every detail. The plugin logs at the same level.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Prints only errors to stderr.
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Color,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Format {
    /// One aligned line per pin, for people.
    #[default]
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// The options of the repository from which plugins get metadata.
#[derive(Debug, Args)]
#[command(next_help_heading = "Metadata that the plugin requests")]
pub(crate) struct MetadataArgs {
    /// Reads metadata from a JSON file instead of the service.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["offline", "auth_token_command", "auth_token_file", "ca_file"])]
    pub(crate) metadata: Option<PathBuf>,
    /// Sends nothing to the service: requests for metadata fail as UNAVAILABLE.
    #[arg(long, conflicts_with_all = ["auth_token_command", "auth_token_file", "ca_file"])]
    pub(crate) offline: bool,
    /// Shell command that prints a bearer token for the service, such as `luci-auth token`
    /// [default: anonymous access].
    #[arg(long, value_name = "COMMAND", conflicts_with = "auth_token_file")]
    pub(crate) auth_token_command: Option<String>,
    /// File that holds a bearer token for the service; read again when the token is a minute old.
    #[arg(long, value_name = "FILE")]
    pub(crate) auth_token_file: Option<PathBuf>,
    /// PEM file of root certificates to trust in addition to those of the system.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl Cli {
    /// Parses a command line, which begins with the name of the program.
    ///
    /// # Errors
    ///
    /// The error to exit with; also for `--help` and `--version`.
    pub(crate) fn from_arguments(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let cli = Self::try_parse_from(arguments)?;
        // Rules that clap cannot express, or would report in a less clear way.
        let (subcommand, problem) = match &cli.command {
            Command::Check(args) => ("check", args.find_conflict()),
            Command::CipdPlugin(args) => ("cipd-plugin", args.find_conflict()),
        };
        let Some(problem) = problem else {
            return Ok(cli);
        };
        let mut admit = Self::command();
        admit.build();
        let subcommand = admit
            .find_subcommand_mut(subcommand)
            .expect("it was parsed");
        Err(subcommand.error(ErrorKind::ArgumentConflict, problem))
    }
}

impl CheckArgs {
    fn find_conflict(&self) -> Option<&'static str> {
        if !self.from_cipd_config {
            return self.plugin.is_missing().then_some(
                "no plugin: pass a COMMAND after `--`, --component FILE or --from-cipd-config",
            );
        }
        (self.plugin.command.wire == Some(Wire::Stdio)).then_some(
            "--wire stdio cannot be used with --from-cipd-config, which implies --wire grpc",
        )
    }
}

impl CipdPluginArgs {
    fn find_conflict(&self) -> Option<&'static str> {
        if self.plugin.is_missing() {
            return Some("no policy: pass a COMMAND after `--`, or --component FILE");
        }
        // Over gRPC a metadata call does not name its check, so it could not be forwarded
        // as a call of that check.
        (self.plugin.command.wire == Some(Wire::Grpc)).then_some(
            "--wire grpc cannot be used with cipd-plugin: the client can run a gRPC plugin itself",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Command, String> {
        let arguments = [&["admit"], args].concat();
        let cli = Cli::from_arguments(arguments).map_err(|error| error.to_string())?;
        Ok(cli.command)
    }

    fn check(args: &[&str]) -> Result<CheckArgs, String> {
        match parse(&[&["check"], args].concat())? {
            Command::Check(args) => Ok(*args),
            Command::CipdPlugin(_) => unreachable!("the line begins with `check`"),
        }
    }

    /// Returns the first line of the error.
    fn refusal(args: &[&str]) -> String {
        let text = parse(args).expect_err("it should be refused");
        text.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn cipd_plugin_refuses_the_options_that_only_check_has() {
        for option in ["--verbose", "--quiet", "--color=never", "--offline"] {
            assert!(check(&[option, "--", "./p"]).is_ok(), "{option}");
            assert!(
                parse(&["cipd-plugin", option, "--", "./p"]).is_err(),
                "{option}"
            );
        }
    }

    #[test]
    fn exactly_one_plugin_is_required() {
        assert_eq!(
            refusal(&["check", "--no-cache"]),
            "error: no plugin: pass a COMMAND after `--`, --component FILE or --from-cipd-config"
        );
        assert_eq!(
            refusal(&["cipd-plugin"]),
            "error: no policy: pass a COMMAND after `--`, or --component FILE"
        );
        assert_eq!(
            refusal(&["check", "--component", "p.wasm", "--", "./p"]),
            "error: the argument '--component <FILE>' cannot be used with '[COMMAND]...'"
        );
        for (other, shown) in [
            (&["--component", "p.wasm"][..], "--component <FILE>"),
            (&["--", "./p"], "[COMMAND]..."),
        ] {
            assert_eq!(
                refusal(&[&["check", "--from-cipd-config"], other].concat()),
                format!("error: the argument '--from-cipd-config' cannot be used with '{shown}'")
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
            for plugin in [&["--", "./p"][..], &["--from-cipd-config"]] {
                let refusal = refusal(&[&["check", option], plugin].concat());
                assert!(refusal.contains("cannot be used with"), "{refusal}");
            }
        }
        for option in ["--inherit-env", "--env=A", "--wire=grpc"] {
            let refusal = refusal(&["check", option, "--component", "p.wasm"]);
            assert!(refusal.contains("cannot be used with"), "{refusal}");
        }
    }

    #[test]
    fn the_plugin_of_cipds_configuration_takes_more_variables_but_no_other_wire() {
        for options in [
            &["--env", "A=b"][..],
            &["--env=A=b", "--inherit-env", "--wire", "grpc"],
        ] {
            let args = check(&[&["--from-cipd-config"], options].concat());
            assert_eq!(args.map(|args| args.plugin.command.env.len()), Ok(1));
        }
        assert_eq!(
            refusal(&["check", "--from-cipd-config", "--wire", "stdio"]),
            "error: --wire stdio cannot be used with --from-cipd-config, which implies --wire grpc"
        );
    }

    #[test]
    fn a_forwarded_check_cannot_go_to_a_grpc_plugin() {
        assert!(parse(&["cipd-plugin", "--wire", "stdio", "--", "./p"]).is_ok());
        assert_eq!(
            refusal(&["cipd-plugin", "--wire", "grpc", "--", "./p"]),
            "error: --wire grpc cannot be used with cipd-plugin: the client can run a gRPC plugin itself"
        );
    }

    #[test]
    fn arguments_after_the_dashes_belong_to_the_command() {
        let args = check(&["--wire", "grpc", "--", "./p", "--env", "-v"]).expect("it is valid");
        assert_eq!(args.plugin.command.command, ["./p", "--env", "-v"]);
        assert_eq!(args.plugin.command.wire, Some(Wire::Grpc));
        assert!(args.plugin.command.env.is_empty());
    }

    #[test]
    fn metadata_has_at_most_one_source() {
        let places = [
            "--offline",
            "--metadata=m.json",
            "--auth-token-command=print",
            "--auth-token-file=token",
        ];
        for (n, one) in places.iter().enumerate() {
            assert!(check(&[one, "--", "./p"]).is_ok(), "{one}");
            for other in &places[n + 1..] {
                let refusal = refusal(&["check", one, other, "--", "./p"]);
                assert!(refusal.contains("cannot be used with"), "{refusal}");
            }
        }
        for local in &places[..2] {
            let refusal = refusal(&["check", local, "--ca-file=ca.pem", "--", "./p"]);
            assert!(refusal.contains("cannot be used with"), "{refusal}");
        }
    }
}
