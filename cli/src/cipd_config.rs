//! The admission plugin that `cipd` is configured to use.
//!
//! Reads the same sources as `cipd`, in the same order and with the same errors, so that
//! `admit` uses the plugin that `cipd` would use.

mod text_format;

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::iter;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use admission_proto::{ServiceUrl, quote};
use anyhow::{Context as _, anyhow, bail};

use self::text_format::AdmissionPlugin;
use crate::error::UserError;

/// The variable that holds the plugin's command line, as a JSON list of strings.
const PLUGIN: &str = "CIPD_ADMISSION_PLUGIN";

/// The variable that holds the path of the configuration file.
const FILE: &str = "CIPD_CONFIG_FILE";

/// The variable that holds the URL of the service.
const SERVICE_URL: &str = "CIPD_SERVICE_URL";

/// The configuration file unless [`FILE`] names another; it may be missing.
const DEFAULT_FILE: &str = "/etc/chrome-infra/cipd.cfg";

/// Longest configuration file, in bytes. Bounds the cost of a path such as `/dev/zero`.
const MAX_FILE: usize = 1 << 20;

/// The part of `cipd`'s configuration that concerns plugins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CipdConfig {
    /// The plugin's command line; it has at least a program.
    pub(crate) argv: Vec<OsString>,
    /// The variable or file that names the plugin.
    pub(crate) origin: String,
    pub(crate) service_url: Option<ServiceUrl>,
}

/// The plugin of the configuration file.
enum FilePlugin {
    Found {
        file: PathBuf,
        argv: Vec<String>,
    },
    /// The file names no plugin, for this reason.
    Missing(String),
}

impl CipdConfig {
    /// Reads the configuration from this process' environment, and from the file it names.
    ///
    /// # Errors
    ///
    /// If there is no plugin, or a variable or the file is broken. A broken file is an
    /// error even if the environment names the plugin: no command of `cipd` works with
    /// such a file.
    pub(crate) fn load() -> anyhow::Result<Self> {
        Self::load_from(|name| env::var_os(name), Path::new(DEFAULT_FILE))
    }

    fn load_from(
        variable: impl Fn(&str) -> Option<OsString>,
        default_file: &Path,
    ) -> anyhow::Result<Self> {
        // `cipd` treats an empty variable like an unset one.
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let from_environment = variable(PLUGIN).map_or(Ok(Vec::new()), parse_argv)?;
        let service_url = variable(SERVICE_URL)
            .map(|url| url.to_string_lossy().parse::<ServiceUrl>())
            .transpose()
            .map_err(|error| anyhow!("bad {SERVICE_URL}: {error}"))?;
        let (origin, argv) = match load_file(variable(FILE), default_file)? {
            _ if !from_environment.is_empty() => (PLUGIN.to_owned(), from_environment),
            FilePlugin::Found { file, argv } => (file.display().to_string(), argv),
            FilePlugin::Missing(reason) => {
                let text = format!(
                    "cipd has no admission plugin: {PLUGIN} is unset or empty, and {reason}"
                );
                return Err(UserError::new(text)
                    .hint(r#"without a plugin, `cipd` deploys without checks; to configure one, set CIPD_ADMISSION_PLUGIN='["/opt/policy", "--strict"]'"#)
                    .into());
            }
        };
        Ok(Self {
            argv: argv.into_iter().map(OsString::from).collect(),
            origin,
            service_url,
        })
    }
}

/// Parses a command line. As in `cipd`, `null` is an empty list, and a `null` in a list is an
/// empty string.
fn parse_argv(value: OsString) -> anyhow::Result<Vec<String>> {
    let argv: Option<Vec<Option<String>>> =
        serde_json::from_slice(value.as_bytes()).with_context(|| {
            let value = quote(&value.to_string_lossy());
            UserError::new(format!("bad {PLUGIN} {value}: not a valid JSON"))
                .hint(r#"it must be the command line as a list, such as CIPD_ADMISSION_PLUGIN='["/opt/policy", "--strict"]'"#)
        })?;
    let argv = argv.unwrap_or_default().into_iter();
    Ok(argv.map(Option::unwrap_or_default).collect())
}

/// Loads the plugin from the file at `path` or, without a path, from the default file. Only the
/// default file may be missing.
fn load_file(path: Option<OsString>, default: &Path) -> anyhow::Result<FilePlugin> {
    let (file, may_be_missing) = match path {
        None => (default.to_owned(), true),
        Some(path) if path == "-" => {
            let reason = format!("{FILE} is `-`, which disables the file");
            return Ok(FilePlugin::Missing(reason));
        }
        Some(path) if !Path::new(&path).is_absolute() => {
            let path = quote(&path.to_string_lossy());
            bail!("bad {FILE} {path}: must be an absolute path");
        }
        Some(path) => (clean(Path::new(&path)), false),
    };
    let shown = file.display();
    let text = match read_file(&file) {
        Err(error) if may_be_missing && error.kind() == io::ErrorKind::NotFound => {
            return Ok(FilePlugin::Missing(format!("{shown} does not exist")));
        }
        text => text.with_context(|| format!("loading CIPD config: cannot read {shown}"))?,
    };
    if text.len() > MAX_FILE {
        bail!("loading CIPD config: {shown}: longer than {MAX_FILE} bytes");
    }
    let AdmissionPlugin { cmd, args } = AdmissionPlugin::read(&text)
        .map_err(|problem| anyhow!("loading CIPD config: {shown}:{problem}"))?;
    if cmd.is_empty() {
        return Ok(FilePlugin::Missing(format!("{shown} names no plugin")));
    }
    let argv = iter::once(cmd).chain(args).collect();
    Ok(FilePlugin::Found { file, argv })
}

/// Reads at most `MAX_FILE + 1` bytes of a file, so that the caller can detect a longer file.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = File::open(path)?;
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Removes `..` from an absolute path without looking at the file system, as `cipd` does. If
/// the path has symbolic links, the result may name another file.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                cleaned.pop();
            }
            component => cleaned.push(component),
        }
    }
    cleaned
}

#[cfg(test)]
mod tests;
