//! The pins to check, from the command line and from files.

mod ensure;
mod lines;
mod pins;
mod resolved;
mod template;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use admission_host::{Pin, PinError};
use admission_proto::{VersionError, quote};

use self::ensure::{EnsureProblem, Unresolved};
use self::lines::{LONGEST_LINE, Lines, is_stdin};
pub(crate) use self::template::Platform;
use crate::args::PinArgs;
use crate::service_url::ServiceUrl;

/// Why there are no pins to check.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// Nothing was named, or nothing is in what was named.
    #[error("no pin to check")]
    NoPin,
    /// What the ensure files name is all for other platforms.
    #[error("no pin to check on {0}")]
    NoPinOn(Platform),
    /// Stdin can be read once.
    #[error("only one input can be stdin")]
    Stdin,
    /// The file cannot be read.
    #[error("cannot read {file}")]
    Read { file: Name, source: io::Error },
    /// An ensure file refers to a file that cannot be opened.
    #[error("cannot read {}, the $ResolvedVersions of {ensure_file}", file.display())]
    ResolvedVersions {
        file: PathBuf,
        ensure_file: Name,
        source: io::Error,
    },
    /// A line of the file is broken; it is the first one that is.
    #[error("{file}:{line}: {problem}")]
    Line {
        file: Name,
        line: usize,
        problem: Problem,
    },
    /// Ensure files have versions that are known to the service only.
    #[error("some versions cannot be resolved offline")]
    Unresolved(Vec<Unresolved>),
    /// One run asks for the pins of one service.
    #[error("{} is for {}, but {} is for {}", first.0, first.1, second.0, second.1)]
    Services {
        first: (Name, ServiceUrl),
        second: (Name, ServiceUrl),
    },
}

impl InputError {
    /// Returns what there is to say beside the error itself, a line each.
    pub(crate) fn details(&self) -> Vec<String> {
        match self {
            Self::Unresolved(files) => files.iter().flat_map(Unresolved::details).collect(),
            _ => Vec::new(),
        }
    }

    /// Says what to do next.
    pub(crate) fn hints(&self) -> Vec<String> {
        match self {
            Self::NoPin => vec![
                "name pins as package:instance_id, or pass --ensure-file FILE, \
                 --resolved-versions FILE or --pins FILE"
                    .to_owned(),
            ],
            Self::NoPinOn(_) => vec!["--platform OS-ARCH asks for another platform".to_owned()],
            Self::ResolvedVersions { ensure_file, source, .. }
                if source.kind() == io::ErrorKind::NotFound =>
            {
                vec![ensure::resolve(ensure_file)]
            }
            Self::Unresolved(files) => files.iter().map(Unresolved::hint).collect(),
            Self::Services { .. } => vec![
                "check the files one by one, or pass --service-url URL to ask about all of them there"
                    .to_owned(),
            ],
            _ => Vec::new(),
        }
    }
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Version(#[from] VersionError),
    #[error(transparent)]
    Ensure(#[from] EnsureProblem),
    #[error("not valid UTF-8")]
    Utf8,
    #[error("longer than {LONGEST_LINE} bytes")]
    TooLong,
    #[error("expected {expected}, found {found}")]
    Unexpected {
        expected: &'static str,
        found: Found,
    },
    #[error("the instance {} cannot be resolved to another one", quote(.0))]
    OtherInstance(String),
    #[error("{} is another instance here than on line {line}, where it is {known}", quote(.version))]
    Contradiction {
        version: String,
        known: Pin,
        line: usize,
    },
}

/// What stands where something else is expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Found {
    #[error("a blank line")]
    Blank,
    #[error("the end of the file")]
    End,
    #[error("{0:?}")]
    Text(String),
}

/// The name of a file as messages show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Stdin,
    Path(PathBuf),
}

impl Name {
    /// Returns what names the file on a command line.
    fn as_argument(&self) -> &Path {
        match self {
            Self::Stdin => Path::new("-"),
            Self::Path(path) => path,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("<stdin>"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// What there is to check.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) pins: Vec<Pin>,
    /// The service of each ensure file, if it names one.
    services: Vec<(Name, Option<ServiceUrl>)>,
}

impl Inputs {
    /// Returns the one service that all pins are of; `default` is that of files which
    /// name none.
    ///
    /// # Errors
    ///
    /// [`InputError::Services`] if they are of different services.
    pub(crate) fn service_url(&self, default: ServiceUrl) -> Result<ServiceUrl, InputError> {
        let mut services = self
            .services
            .iter()
            .map(|(file, url)| (file, url.as_ref().unwrap_or(&default)));
        let Some(first) = services.next() else {
            return Ok(default);
        };
        match services.find(|(_, url)| *url != first.1) {
            None => Ok(first.1.clone()),
            Some(second) => {
                let owned = |(file, url): (&Name, &ServiceUrl)| (file.clone(), url.clone());
                Err(InputError::Services {
                    first: owned(first),
                    second: owned(second),
                })
            }
        }
    }
}

/// Reads all pins, in the order of [`PinArgs`].
///
/// # Errors
///
/// [`InputError`] for the first thing that is wrong, or if there is no pin at all.
pub(crate) fn read(args: PinArgs) -> Result<Inputs, InputError> {
    let files = args
        .ensure_files
        .iter()
        .chain(&args.resolved_versions)
        .chain(&args.file);
    if files.filter(|path| is_stdin(path)).count() > 1 {
        return Err(InputError::Stdin);
    }
    let mut inputs = Inputs {
        pins: args.pins,
        services: Vec::new(),
    };
    let platform = args.platform.unwrap_or_else(Platform::of_this_machine);
    let skipped = read_ensure_files(&args.ensure_files, &platform, &mut inputs)?;
    if let Some(path) = &args.resolved_versions {
        resolved::read(&mut Lines::open_or_stdin(path)?, &mut inputs.pins)?;
    }
    if let Some(path) = &args.file {
        pins::read(&mut Lines::open_or_stdin(path)?, &mut inputs.pins)?;
    }
    match inputs.pins.is_empty() {
        true if skipped => Err(InputError::NoPinOn(platform)),
        true => Err(InputError::NoPin),
        false => Ok(inputs),
    }
}

/// Reads all ensure files, and tells whether something in them is for other platforms.
fn read_ensure_files(
    paths: &[PathBuf],
    platform: &Platform,
    inputs: &mut Inputs,
) -> Result<bool, InputError> {
    let mut skipped = false;
    let mut unresolved = Vec::new();
    for path in paths {
        let mut lines = Lines::open_or_stdin(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let file = ensure::read(&mut lines, folder, platform)?;
        inputs.pins.extend(file.pins);
        inputs
            .services
            .push((lines.file().clone(), file.service_url));
        unresolved.extend(file.unresolved);
        skipped |= file.skipped;
    }
    if !unresolved.is_empty() {
        return Err(InputError::Unresolved(unresolved));
    }
    Ok(skipped)
}

#[cfg(test)]
mod testing {
    //! What the tests of all formats need.

    use std::io;

    use super::Name;
    use super::lines::Lines;

    pub(super) const ID: &str = "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";
    pub(super) const SHA1: &str = "deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";

    /// Returns the lines of a file called `in`.
    pub(super) fn lines(text: impl Into<Vec<u8>>) -> Lines {
        Lines::new(Name::Path("in".into()), io::Cursor::new(text.into()))
    }
}
