//! What an ensure file says, line by line.

use std::collections::HashMap;
use std::path::PathBuf;

use admission_host::Pin;
use admission_proto::{HashMode, ObjectRef, quote, validate_package_name, validate_version};

use crate::input::Problem;
use crate::input::template::{Expansion, Platform, PlatformError, TemplateError};
use crate::service_url::{ServiceUrl, ServiceUrlError};

/// What an ensure file says so far, about one platform.
pub(super) struct Statements<'a> {
    pub(super) platform: &'a Platform,
    pub(super) service_url: Option<ServiceUrl>,
    pub(super) resolved_versions: Option<PathBuf>,
    pub(super) verified_platforms: Vec<Platform>,
    /// Whether anything but settings was seen: they come first.
    settled: bool,
    /// Where packages go from here on; nowhere, if not on this platform.
    subdir: Option<String>,
    /// Whether anything is not for this platform.
    pub(super) skipped: bool,
    pub(super) packages: Vec<Package>,
    /// The line of each package in each subdir.
    deployed: HashMap<(String, String), usize>,
}

#[derive(Debug)]
pub(super) struct Package {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) version: Version,
}

#[derive(Debug)]
pub(super) enum Version {
    Instance(Pin),
    /// A ref or a tag.
    Named(String),
}

/// What is wrong with a line of an ensure file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnsureProblem {
    #[error("$setting found after packages or @directives")]
    LateSetting,
    #[error("unknown $setting: {}", quote(.0))]
    UnknownSetting(String),
    #[error("unknown @directive: {}", quote(.0))]
    UnknownDirective(String),
    #[error("$ServiceURL may only be set once per file")]
    ServiceUrlTwice,
    #[error("bad $ServiceURL: {0}")]
    ServiceUrl(ServiceUrlError),
    #[error(
        "unrecognized paranoid mode {}: there are NotParanoid, CheckPresence and CheckIntegrity",
        quote(.0)
    )]
    ParanoidMode(String),
    #[error("only copy mode is allowed in $OverrideInstallMode, not {}", quote(.0))]
    InstallMode(String),
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(
        "bad subdir {}: must be a relative path with plain slashes, and as short as it can be",
        quote(.0)
    )]
    Subdir(String),
    #[error("duplicate package in subdir {}: {} is on line {line}, too", quote(.subdir), quote(.package))]
    Duplicate {
        subdir: String,
        package: String,
        line: usize,
    },
}

impl<'a> Statements<'a> {
    pub(super) fn new(platform: &'a Platform) -> Self {
        Self {
            platform,
            service_url: None,
            resolved_versions: None,
            verified_platforms: Vec::new(),
            settled: false,
            subdir: Some(String::new()),
            skipped: false,
            packages: Vec::new(),
            deployed: HashMap::new(),
        }
    }

    /// Takes in one line that is neither blank nor a comment, the number of which is
    /// `number`.
    pub(super) fn take(&mut self, line: &str, number: usize) -> Result<(), Problem> {
        let (name, value) = match line.split_once(char::is_whitespace) {
            Some((name, value)) => (name, value.trim_start()),
            None => (line, ""),
        };
        if name.starts_with('$') {
            self.setting(name, value)
        } else if name.starts_with('@') {
            self.directive(name, value)
        } else {
            self.package(name, value, number)
        }
    }

    fn setting(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        if self.settled {
            return Err(EnsureProblem::LateSetting.into());
        }
        match &*name.to_lowercase() {
            "$serviceurl" => {
                let url = value.parse().map_err(EnsureProblem::ServiceUrl)?;
                if self.service_url.replace(url).is_some() {
                    return Err(EnsureProblem::ServiceUrlTwice.into());
                }
            }
            "$resolvedversions" => {
                self.resolved_versions = (!value.is_empty()).then(|| value.into());
            }
            "$verifiedplatform" => {
                for platform in value.split_whitespace() {
                    let platform = platform.parse().map_err(EnsureProblem::Platform)?;
                    self.verified_platforms.push(platform);
                }
            }
            // How to deploy is not judged, but a file that `cipd` refuses is refused.
            "$paranoidmode" => {
                if !matches!(value, "NotParanoid" | "CheckPresence" | "CheckIntegrity") {
                    return Err(EnsureProblem::ParanoidMode(value.to_owned()).into());
                }
            }
            "$overrideinstallmode" => {
                if value != "copy" {
                    return Err(EnsureProblem::InstallMode(value.to_owned()).into());
                }
            }
            _ => return Err(EnsureProblem::UnknownSetting(name.to_owned()).into()),
        }
        Ok(())
    }

    fn directive(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        self.settled = true;
        if name.to_lowercase() != "@subdir" {
            return Err(EnsureProblem::UnknownDirective(name.to_owned()).into());
        }
        let Expansion { applies, text } = self.platform.expand(value);
        let subdir = text.map_err(EnsureProblem::Template)?;
        if !is_subdir(&subdir) {
            return Err(EnsureProblem::Subdir(subdir).into());
        }
        self.subdir = applies.then_some(subdir);
        Ok(())
    }

    fn package(&mut self, template: &str, version: &str, line: usize) -> Result<(), Problem> {
        self.settled = true;
        let Expansion { applies, text } = self.platform.expand(template);
        let Some(subdir) = self.subdir.as_ref().filter(|_| applies) else {
            self.skipped = true;
            return Ok(());
        };
        let package = text.map_err(EnsureProblem::Template)?;
        validate_package_name(&package)?;
        validate_version(version)?;
        let deployed = (subdir.clone(), package.clone());
        if let Some(line) = self.deployed.insert(deployed, line) {
            return Err(EnsureProblem::Duplicate {
                subdir: subdir.clone(),
                package,
                line,
            }
            .into());
        }
        let version = if ObjectRef::from_instance_id(version, HashMode::Any).is_ok() {
            Version::Instance(Pin::new(&package, version)?)
        } else {
            Version::Named(version.to_owned())
        };
        self.packages.push(Package {
            line,
            name: package,
            version,
        });
        Ok(())
    }
}

/// Tells whether packages may be deployed to `subdir`; the empty one is the root.
fn is_subdir(subdir: &str) -> bool {
    subdir.is_empty()
        || !subdir.contains(['\\', ':'])
            && subdir
                .split('/')
                .all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::input::testing::{ID, SHA1, lines};

    /// Takes in a text, and returns its packages or what is wrong with its last line.
    fn packages(text: &str) -> Result<Vec<String>, String> {
        let platform = "linux-amd64".parse().expect("a platform");
        let mut statements = Statements::new(&platform);
        for (line, number) in text.lines().zip(1..) {
            statements
                .take(line, number)
                .map_err(|error| error.to_string())?;
        }
        let package = |package: &Package| match &package.version {
            Version::Instance(pin) => pin.to_string(),
            Version::Named(version) => format!("{}@{version}", package.name),
        };
        Ok(statements.packages.iter().map(package).collect())
    }

    fn list(packages: &[&str]) -> Result<Vec<String>, String> {
        Ok(packages.iter().map(|&package| package.to_owned()).collect())
    }

    #[test]
    fn a_package_has_a_version_of_any_kind() {
        assert_eq!(
            packages(&format!("a latest\nb\t \tk:some tag\nc {ID}\nd {SHA1}")),
            list(&[
                "a@latest",
                "b@k:some tag",
                &format!("c:{ID}"),
                &format!("d:{SHA1}")
            ])
        );
    }

    #[test]
    fn only_packages_for_the_platform_count() {
        assert_eq!(
            packages(
                "tool/${platform} latest\n\
                 tool/${os=windows} no version at all\n\
                 tool/${os=mac,linux}/x latest\n\
                 @Subdir only/${arch=arm64}\n\
                 BAD latest\n\
                 @Subdir also/${arch=amd64}\n\
                 other latest\n\
                 @Subdir\n\
                 third latest"
            ),
            list(&[
                "tool/linux-amd64@latest",
                "tool/linux/x@latest",
                "other@latest",
                "third@latest"
            ])
        );
    }

    #[test]
    fn settings_come_first_in_any_case_of_letters() {
        assert_eq!(
            packages(
                "$ServiceURL https://cipd.example.com/\n\
                 $paranoidmode CheckIntegrity\n\
                 $VERIFIEDPLATFORM linux-amd64 mac-arm64\n\
                 $VerifiedPlatform windows-386\n\
                 $VerifiedPlatform\n\
                 $OverrideInstallMode copy\n\
                 $ResolvedVersions a file\n\
                 $ResolvedVersions\n\
                 @subdir x\n\
                 a latest"
            ),
            list(&["a@latest"])
        );
    }

    #[test]
    fn a_package_may_be_in_several_subdirs_but_in_each_once() {
        assert_eq!(
            packages("a one\n@Subdir x\na two\n@Subdir ${os}\na three"),
            list(&["a@one", "a@two", "a@three"])
        );
        assert_eq!(
            packages("a/linux one\n@Subdir x\nb one\n@Subdir\na/${os} two"),
            Err(r#"duplicate package in subdir "": "a/linux" is on line 1, too"#.to_owned())
        );
        assert_eq!(
            packages("@Subdir ${os}\na one\n@Subdir linux\na one"),
            Err(r#"duplicate package in subdir "linux": "a" is on line 2, too"#.to_owned())
        );
    }

    #[test]
    fn a_line_that_cipd_refuses_is_refused() {
        let name =
            r#"must be a slash-separated path where each component matches "[a-z0-9_\-\.]+""#;
        let subdir = "must be a relative path with plain slashes, and as short as it can be";
        for (text, refused) in [
            ("a", r#"bad version "": not an instance ID, a ref or a tag"#.to_owned()),
            (
                "this has too many tokens",
                r#"bad version "has too many tokens": not an instance ID, a ref or a tag"#.into(),
            ),
            ("A latest", format!(r#"invalid package name "A": {name}"#)),
            ("a/$os latest", r#"unable to process some variables in "a/$os""#.into()),
            ("\u{feff}a latest", format!(r#"invalid package name "\ufeffa": {name}"#)),
            ("@ x", r#"unknown @directive: "@""#.into()),
            ("@Nerbs x", r#"unknown @directive: "@Nerbs""#.into()),
            (r"@Subdir a\b", format!(r#"bad subdir "a\\b": {subdir}"#)),
            ("@Subdir c:/a", format!(r#"bad subdir "c:/a": {subdir}"#)),
            ("@Subdir /a", format!(r#"bad subdir "/a": {subdir}"#)),
            ("@Subdir a/", format!(r#"bad subdir "a/": {subdir}"#)),
            ("@Subdir a/../b", format!(r#"bad subdir "a/../b": {subdir}"#)),
            ("@Subdir .", format!(r#"bad subdir ".": {subdir}"#)),
            ("@Subdir ..", format!(r#"bad subdir "..": {subdir}"#)),
            (
                "@Subdir $${os=mac}",
                r#"unable to process some variables in "$${os=mac}""#.into(),
            ),
            ("$ x", r#"unknown $setting: "$""#.into()),
            ("$Nurbs x", r#"unknown $setting: "$Nurbs""#.into()),
            (
                "$ServiceURL ://sad.url",
                r#"bad $ServiceURL: expecting a root URL such as https://chrome-infra-packages.appspot.com, not "://sad.url""#.into(),
            ),
            (
                "$ServiceURL https://a\n$serviceurl https://a",
                "$ServiceURL may only be set once per file".into(),
            ),
            (
                "$ParanoidMode ZZZ",
                r#"unrecognized paranoid mode "ZZZ": there are NotParanoid, CheckPresence and CheckIntegrity"#.into(),
            ),
            (
                "$OverrideInstallMode symlink",
                r#"only copy mode is allowed in $OverrideInstallMode, not "symlink""#.into(),
            ),
            (
                "$VerifiedPlatform a-b c",
                r#"platform must be <os>-<arch>, got "c""#.into(),
            ),
            (
                "a latest\n$ServiceURL https://a",
                "$setting found after packages or @directives".into(),
            ),
            (
                "@Subdir\n$ServiceURL https://a",
                "$setting found after packages or @directives".into(),
            ),
            (
                "a B7r75joOfFfFcq7fHCKAIrU34oeFAT174Bf8eHMajMUD",
                r#"not a valid package instance ID "B7r75joOfFfFcq7fHCKAIrU34oeFAT174Bf8eHMajMUD": unsupported unknown hash algorithm #3"#.into(),
            ),
        ] {
            assert_eq!(packages(text), Err(refused), "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_taken_or_refused(
            text in "([$@]|ServiceURL|Subdir|VerifiedPlatform|[$][{]|os|=|[}]|[ \n/,-]|a|latest|.){0,40}",
        ) {
            let platform = Platform::of_this_machine();
            let mut statements = Statements::new(&platform);
            let mut lines = lines(text);
            while let Ok(Some(line)) = lines.next() {
                let _ = statements.take(&line, lines.number());
            }
        }
    }
}
