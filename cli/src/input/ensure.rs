//! Ensure files: what `cipd ensure` is told to deploy.

mod statements;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use admission_host::Pin;
use admission_proto::quote;

pub(crate) use self::statements::EnsureProblem;
use self::statements::{Package, Statements, Version};
use super::lines::Lines;
use super::resolved::ResolvedVersions;
use super::template::Platform;
use super::{InputError, Name};
use crate::service_url::ServiceUrl;

/// What is asked for by one ensure file.
#[derive(Debug)]
pub(super) struct Ensured {
    /// Each pin once, also where it is deployed to several places.
    pub(super) pins: Vec<Pin>,
    pub(super) service_url: Option<ServiceUrl>,
    /// Whether something in it is for other platforms only.
    pub(super) skipped: bool,
    pub(super) unresolved: Option<Unresolved>,
}

/// The versions of an ensure file that only the service knows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unresolved {
    pub(super) file: Name,
    /// The line, the package and the version of each.
    pub(super) versions: Vec<(usize, String, String)>,
    pub(super) resolved_versions: Option<PathBuf>,
    /// What the file must say before `cipd` resolves it for this platform.
    pub(super) missing: Vec<String>,
}

/// Reads an ensure file for `platform`; `folder` is what paths in it are relative to.
///
/// # Errors
///
/// [`InputError`] for the first thing that is wrong with it, but none for versions that
/// cannot be resolved: those are collected in [`Ensured`].
pub(super) fn read(
    lines: &mut Lines,
    folder: &Path,
    platform: &Platform,
) -> Result<Ensured, InputError> {
    let mut file = Statements::new(platform);
    while let Some(line) = lines.next()? {
        if !line.is_empty() {
            file.take(&line, lines.number())
                .map_err(|problem| lines.broken(problem))?;
        }
    }
    let resolved = match &file.resolved_versions {
        Some(path) => {
            let path = folder.join(path);
            let mut lines = Lines::open(&path).map_err(|error| match error {
                InputError::Read { source, .. } => InputError::ResolvedVersions {
                    file: path,
                    ensure_file: lines.file().clone(),
                    source,
                },
                other => other,
            })?;
            ResolvedVersions::read(&mut lines)?
        }
        None => ResolvedVersions::default(),
    };
    Ok(resolve_all(file, &resolved, lines.file()))
}

fn resolve_all(said: Statements<'_>, resolved: &ResolvedVersions, file: &Name) -> Ensured {
    let mut pins = Vec::new();
    let mut seen = HashSet::new();
    let mut versions = Vec::new();
    for Package {
        line,
        name,
        version,
    } in said.packages
    {
        let pin = match version {
            Version::Instance(pin) => pin,
            Version::Named(version) => match resolved.get(&name, &version) {
                Some(pin) => pin.clone(),
                None => {
                    versions.push((line, name, version));
                    continue;
                }
            },
        };
        if seen.insert(pin.clone()) {
            pins.push(pin);
        }
    }
    let mut missing = Vec::new();
    if said.resolved_versions.is_none() {
        missing.push("$ResolvedVersions cipd.versions".to_owned());
    }
    if !said.verified_platforms.contains(said.platform) {
        missing.push(format!("$VerifiedPlatform {}", said.platform));
    }
    Ensured {
        pins,
        service_url: said.service_url,
        skipped: said.skipped,
        unresolved: (!versions.is_empty()).then(|| Unresolved {
            file: file.clone(),
            versions,
            resolved_versions: said.resolved_versions,
            missing,
        }),
    }
}

impl Unresolved {
    /// Says of each version, on a line of its own, where it is asked for.
    pub(super) fn details(&self) -> impl Iterator<Item = String> {
        self.versions.iter().map(|(line, package, version)| {
            let why = match &self.resolved_versions {
                Some(file) => format!("is not in {}", file.display()),
                None => "is not an instance ID".to_owned(),
            };
            format!(
                "{}:{line}: version {} of {package} {why}",
                self.file,
                quote(version)
            )
        })
    }

    /// Says how to have them resolved.
    pub(super) fn hint(&self) -> String {
        let resolve = resolve(&self.file);
        match &*self.missing {
            [] => resolve,
            settings => format!(
                "put `{}` at the top of {}, then {resolve}",
                settings.join("` and `"),
                self.file
            ),
        }
    }
}

/// Says how to have the versions of an ensure file resolved.
pub(super) fn resolve(file: &Name) -> String {
    format!(
        "run `cipd ensure-file-resolve -ensure-file {}`",
        file.as_argument().display()
    )
}
