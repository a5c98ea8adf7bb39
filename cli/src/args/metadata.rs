//! The options of where metadata comes from.

use std::path::PathBuf;

use clap::Args;

/// Where the metadata comes from that the plugin asks for.
#[derive(Debug)]
pub(crate) enum Metadata {
    File(PathBuf),
    /// From nowhere.
    Offline,
    Service(Access),
}

/// How the service is approached.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) identity: Identity,
    pub(crate) ca_file: Option<PathBuf>,
}

/// Who asks the service.
#[derive(Debug)]
pub(crate) enum Identity {
    Anonymous,
    /// Whoever this shell command prints a token of.
    TokenCommand(String),
    TokenFile(PathBuf),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Metadata that the plugin asks for")]
pub(super) struct MetadataArgs {
    /// Takes metadata from a JSON file, and asks no service.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["offline", "auth_token_command", "auth_token_file", "ca_file"])]
    metadata: Option<PathBuf>,
    /// Asks no service: the plugin is told that metadata is unavailable.
    #[arg(long, conflicts_with_all = ["auth_token_command", "auth_token_file", "ca_file"])]
    offline: bool,
    /// Shell command that prints a token for the service, such as 'luci-auth token';
    /// without one, it is asked anonymously.
    #[arg(long, value_name = "COMMAND", conflicts_with = "auth_token_file")]
    auth_token_command: Option<String>,
    /// File that holds a token for the service.
    #[arg(long, value_name = "FILE")]
    auth_token_file: Option<PathBuf>,
    /// PEM file of root certificates to trust beside those of the system.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl MetadataArgs {
    /// Settles on one place. The options that exclude each other were refused before.
    pub(super) fn choose(self) -> Metadata {
        if let Some(file) = self.metadata {
            return Metadata::File(file);
        }
        if self.offline {
            return Metadata::Offline;
        }
        Metadata::Service(Access {
            identity: match (self.auth_token_command, self.auth_token_file) {
                (Some(command), _) => Identity::TokenCommand(command),
                (None, Some(file)) => Identity::TokenFile(file),
                (None, None) => Identity::Anonymous,
            },
            ca_file: self.ca_file,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn metadata(args: &[&str]) -> Result<Metadata, String> {
        let line = ["admit", "check"].iter().chain(args).chain(&["--", "./p"]);
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        let Command::Check(args) = cli.command else {
            panic!("another command");
        };
        let job = args.into_job().map_err(|error| error.to_string())?;
        Ok(job.metadata)
    }

    #[test]
    fn the_service_is_asked_anonymously_unless_told_otherwise() {
        let chosen = metadata(&[]);
        assert!(
            matches!(
                chosen,
                Ok(Metadata::Service(Access {
                    identity: Identity::Anonymous,
                    ca_file: None
                }))
            ),
            "{chosen:?}"
        );
        let chosen = metadata(&["--auth-token-command", "print", "--ca-file", "ca.pem"]);
        assert!(
            matches!(
                &chosen,
                Ok(Metadata::Service(Access {
                    identity: Identity::TokenCommand(command),
                    ca_file: Some(_)
                })) if command == "print"
            ),
            "{chosen:?}"
        );
    }

    #[test]
    fn metadata_comes_from_one_place() {
        assert!(matches!(metadata(&["--offline"]), Ok(Metadata::Offline)));
        assert!(matches!(
            metadata(&["--metadata", "m.json"]),
            Ok(Metadata::File(_))
        ));
        let places = [
            "--offline",
            "--metadata=m.json",
            "--auth-token-command=print",
            "--auth-token-file=token",
        ];
        for (n, one) in places.iter().enumerate() {
            for other in &places[n + 1..] {
                let refused = metadata(&[one, other]).expect_err("two places");
                assert!(refused.contains("cannot be used with"), "{refused}");
            }
        }
        for local in &places[..2] {
            metadata(&[local, "--ca-file=ca.pem"]).expect_err("no service is asked");
        }
    }
}
