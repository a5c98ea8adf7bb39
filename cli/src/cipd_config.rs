//! The admission plugin that `cipd` is configured to ask.
//!
//! What is read, in which order, and what is an error is as in `cipd`, so that `admit`
//! asks the plugin that `cipd` would ask.

mod client_config;
mod text_format;

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::iter;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use admission_proto::quote;

use self::client_config::AdmissionPlugin;
use self::text_format::TextError;
use crate::service_url::{ServiceUrl, ServiceUrlError};

/// The variable that has the plugin's command line, as a JSON list of strings.
const PLUGIN: &str = "CIPD_ADMISSION_PLUGIN";

/// The variable that has the path of the configuration file.
const FILE: &str = "CIPD_CONFIG_FILE";

/// The variable that has the URL of the service.
const SERVICE_URL: &str = "CIPD_SERVICE_URL";

/// The configuration file where [`FILE`] names no other; it may be missing.
const DEFAULT_FILE: &str = "/etc/chrome-infra/cipd.cfg";

/// Longest configuration file, in bytes. Bounds what a path such as `/dev/zero` costs.
const LONGEST_FILE: usize = 1 << 20;

/// What `cipd` is configured to do, as far as plugins are concerned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CipdConfig {
    /// The plugin's command line, with a program at least.
    pub(crate) argv: Vec<OsString>,
    /// What names the plugin: a variable or a file.
    pub(crate) origin: String,
    pub(crate) service_url: Option<ServiceUrl>,
}

/// Why the plugin that `cipd` would ask is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CipdConfigError {
    #[error("bad {PLUGIN} {}: not a valid JSON", quote(.value))]
    Plugin {
        value: String,
        source: serde_json::Error,
    },
    #[error("bad {SERVICE_URL}: {0}")]
    ServiceUrl(ServiceUrlError),
    #[error("bad {FILE} {}: must be an absolute path", quote(.0))]
    RelativePath(String),
    #[error("loading CIPD config: cannot read {}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("loading CIPD config: {}: longer than {LONGEST_FILE} bytes", .0.display())]
    TooLong(PathBuf),
    #[error("loading CIPD config: {}:{problem}", file.display())]
    Text { file: PathBuf, problem: TextError },
    /// Nothing is wrong, but `cipd` would ask nobody.
    #[error("cipd has no admission plugin: {PLUGIN} names none, and {0}")]
    NoPlugin(FileWithout),
}

/// Why the file names no plugin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FileWithout {
    #[error("{FILE} is `-`, which is no file")]
    Skipped,
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    #[error("{} names none, either", .0.display())]
    Cmd(PathBuf),
}

impl CipdConfigError {
    /// Says what to do next, if there is something to say.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Plugin { .. } => Some(
                r#"it must be the command line as a list, such as CIPD_ADMISSION_PLUGIN='["/opt/policy", "--strict"]'"#,
            ),
            Self::NoPlugin(_) => Some(
                r#"`cipd` deploys unchecked like this; to change that, set CIPD_ADMISSION_PLUGIN='["/opt/policy", "--strict"]'"#,
            ),
            _ => None,
        }
    }
}

impl CipdConfig {
    /// Finds out from this process' environment, and from the file it names.
    ///
    /// # Errors
    ///
    /// [`CipdConfigError`], also for a broken file that does not matter because the
    /// environment names the plugin: no command of `cipd` works with such a file.
    pub(crate) fn load() -> Result<Self, CipdConfigError> {
        Self::load_from(|name| env::var_os(name), Path::new(DEFAULT_FILE))
    }

    fn load_from(
        variable: impl Fn(&str) -> Option<OsString>,
        default_file: &Path,
    ) -> Result<Self, CipdConfigError> {
        // An empty variable is as good as none.
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let from_environment = variable(PLUGIN).map_or(Ok(Vec::new()), parse_argv)?;
        let service_url = variable(SERVICE_URL)
            .map(|url| url.to_string_lossy().parse())
            .transpose()
            .map_err(CipdConfigError::ServiceUrl)?;
        let from_file = load_file(variable(FILE), default_file);
        let (origin, argv) = match from_file {
            Ok(_) | Err(CipdConfigError::NoPlugin(_)) if !from_environment.is_empty() => {
                (PLUGIN.to_owned(), from_environment)
            }
            from_file => from_file?,
        };
        Ok(Self {
            argv: argv.into_iter().map(OsString::from).collect(),
            origin,
            service_url,
        })
    }
}

/// Reads a command line; `null` is an empty one, and an empty string where in a list.
fn parse_argv(value: OsString) -> Result<Vec<String>, CipdConfigError> {
    let argv: Option<Vec<Option<String>>> =
        serde_json::from_slice(value.as_bytes()).map_err(|source| CipdConfigError::Plugin {
            value: value.to_string_lossy().into_owned(),
            source,
        })?;
    let argv = argv.unwrap_or_default().into_iter();
    Ok(argv.map(Option::unwrap_or_default).collect())
}

/// Loads the plugin of the file at `path`, which must be there, or of the default one,
/// which need not, and returns it with what to call the file.
fn load_file(
    path: Option<OsString>,
    default: &Path,
) -> Result<(String, Vec<String>), CipdConfigError> {
    let (file, may_be_missing) = match path {
        None => (default.to_owned(), true),
        Some(path) if path == "-" => {
            return Err(CipdConfigError::NoPlugin(FileWithout::Skipped));
        }
        Some(path) if !Path::new(&path).is_absolute() => {
            let path = path.to_string_lossy().into_owned();
            return Err(CipdConfigError::RelativePath(path));
        }
        Some(path) => (clean(Path::new(&path)), false),
    };
    let text = match read_file(&file) {
        Ok(text) => text,
        Err(error) if may_be_missing && error.kind() == io::ErrorKind::NotFound => {
            return Err(CipdConfigError::NoPlugin(FileWithout::Missing(file)));
        }
        Err(source) => return Err(CipdConfigError::Read { file, source }),
    };
    if text.len() > LONGEST_FILE {
        return Err(CipdConfigError::TooLong(file));
    }
    let AdmissionPlugin { cmd, args } = match AdmissionPlugin::read(&text) {
        Ok(plugin) => plugin,
        Err(problem) => return Err(CipdConfigError::Text { file, problem }),
    };
    if cmd.is_empty() {
        return Err(CipdConfigError::NoPlugin(FileWithout::Cmd(file)));
    }
    let argv = iter::once(cmd).chain(args).collect();
    Ok((file.display().to_string(), argv))
}

/// Reads a file, or so much of it that it is known to be too long.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = File::open(path)?;
    file.take(LONGEST_FILE as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Takes `..` out of an absolute path without a look at the file system, as `cipd` does:
/// where symbolic links are involved, that may be another file.
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
