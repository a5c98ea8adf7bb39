//! Ensure files, which list the packages that `cipd ensure` deploys.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use admission_host::Pin;
use admission_proto::{
    HashMode, ObjectRef, ServiceUrl, quote, validate_package_name, validate_version,
};
use anyhow::{anyhow, bail};

use super::lines::{Lines, shown};
use super::resolved::ResolvedVersions;
use crate::error::UserError;
use crate::platform::{Expansion, Platform};

/// The content of an ensure file for one platform.
#[derive(Debug)]
pub(super) struct EnsureFile {
    /// Each pin once, even if it is deployed to several subdirs.
    pub(super) pins: Vec<Pin>,
    pub(super) service_url: Option<ServiceUrl>,
    /// Whether packages were skipped because they are only for other platforms.
    pub(super) skipped: bool,
    /// Messages about the versions that only the service could resolve.
    pub(super) unresolved: Vec<String>,
    /// How to resolve these versions.
    pub(super) hint: String,
}

impl EnsureFile {
    /// Reads the file at `path` for `platform`; `-` is stdin.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or a line is invalid; the error is about the first such line.
    /// Versions that cannot be resolved are in `unresolved` instead.
    pub(super) fn read(path: &Path, platform: &Platform) -> anyhow::Result<Self> {
        let mut lines = Lines::open_or_stdin(path)?;
        let mut parser = Parser::new(platform);
        while let Some(line) = lines.next()? {
            if !line.is_empty() {
                parser
                    .parse_line(&line, lines.number())
                    .map_err(|problem| lines.error(problem))?;
            }
        }
        let resolved = match &parser.resolved_versions {
            Some(relative) => {
                let folder = path.parent().unwrap_or(Path::new(""));
                read_resolved_versions(&folder.join(relative), path)?
            }
            None => ResolvedVersions::default(),
        };
        Ok(parser.finish(&resolved, path))
    }
}

fn read_resolved_versions(file: &Path, ensure_file: &Path) -> anyhow::Result<ResolvedVersions> {
    let mut lines = Lines::open(file).map_err(|error| {
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        let (shown, ensure_shown) = (file.display(), shown(ensure_file));
        let text = format!("cannot read {shown}, the $ResolvedVersions of {ensure_shown}");
        let mut context = UserError::new(text);
        if is_missing {
            context = context.hint(resolve_hint(ensure_file));
        }
        anyhow!(error).context(context)
    })?;
    ResolvedVersions::read(&mut lines)
}

/// Returns the hint to resolve the versions of an ensure file.
fn resolve_hint(ensure_file: &Path) -> String {
    let file = ensure_file.display();
    format!("run `cipd ensure-file-resolve -ensure-file {file}`")
}

/// The statements of an ensure file that were parsed so far.
struct Parser<'a> {
    platform: &'a Platform,
    service_url: Option<ServiceUrl>,
    resolved_versions: Option<PathBuf>,
    verified_platforms: Vec<Platform>,
    /// Whether a package or a directive was parsed. All settings must come before those.
    after_settings: bool,
    /// The subdir of the packages that follow; `None` if it is only for other platforms.
    subdir: Option<String>,
    skipped: bool,
    packages: Vec<Package>,
    /// The line of each package in each subdir.
    lines: HashMap<(String, String), usize>,
}

struct Package {
    line: usize,
    name: String,
    version: String,
    /// The pin if the version is an instance ID; otherwise it is a ref or a tag.
    pin: Option<Pin>,
}

impl<'a> Parser<'a> {
    fn new(platform: &'a Platform) -> Self {
        Self {
            platform,
            service_url: None,
            resolved_versions: None,
            verified_platforms: Vec::new(),
            after_settings: false,
            subdir: Some(String::new()),
            skipped: false,
            packages: Vec::new(),
            lines: HashMap::new(),
        }
    }

    /// Parses one line that is neither blank nor a comment.
    fn parse_line(&mut self, line: &str, number: usize) -> anyhow::Result<()> {
        let (name, value) = match line.split_once(char::is_whitespace) {
            Some((name, value)) => (name, value.trim_start()),
            None => (line, ""),
        };
        if name.starts_with('$') {
            if self.after_settings {
                bail!("$setting found after packages or @directives");
            }
            return self.parse_setting(name, value);
        }
        self.after_settings = true;
        if name.starts_with('@') {
            self.parse_directive(name, value)
        } else {
            self.parse_package(name, value, number)
        }
    }

    fn parse_setting(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        match &*name.to_lowercase() {
            "$serviceurl" => {
                let url = value
                    .parse::<ServiceUrl>()
                    .map_err(|error| anyhow!("bad $ServiceURL: {error}"))?;
                if self.service_url.replace(url).is_some() {
                    bail!("$ServiceURL may only be set once per file");
                }
            }
            "$resolvedversions" => {
                self.resolved_versions = (!value.is_empty()).then(|| value.into());
            }
            "$verifiedplatform" => {
                for platform in value.split_whitespace() {
                    self.verified_platforms.push(platform.parse()?);
                }
            }
            // The next two settings do not affect checks, but `cipd` refuses other values.
            "$paranoidmode" => {
                if !matches!(value, "NotParanoid" | "CheckPresence" | "CheckIntegrity") {
                    bail!(
                        "unrecognized paranoid mode {}: must be NotParanoid, CheckPresence or CheckIntegrity",
                        quote(value)
                    );
                }
            }
            "$overrideinstallmode" => {
                if value != "copy" {
                    bail!(
                        "only copy mode is allowed in $OverrideInstallMode, not {}",
                        quote(value)
                    );
                }
            }
            _ => bail!("unknown $setting: {}", quote(name)),
        }
        Ok(())
    }

    fn parse_directive(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        if name.to_lowercase() != "@subdir" {
            bail!("unknown @directive: {}", quote(name));
        }
        let Expansion { applies, text } = self.platform.expand(value);
        let subdir = text?;
        if !is_subdir(&subdir) {
            bail!(
                "bad subdir {}: must be a relative path with forward slashes, and without `.`, `..` or empty parts",
                quote(&subdir)
            );
        }
        self.subdir = applies.then_some(subdir);
        Ok(())
    }

    fn parse_package(&mut self, template: &str, version: &str, line: usize) -> anyhow::Result<()> {
        let Expansion { applies, text } = self.platform.expand(template);
        let Some(subdir) = self.subdir.as_ref().filter(|_| applies) else {
            self.skipped = true;
            return Ok(());
        };
        let name = text?;
        validate_package_name(&name)?;
        validate_version(version)?;
        if let Some(line) = self.lines.insert((subdir.clone(), name.clone()), line) {
            let (subdir, name) = (quote(subdir), quote(&name));
            bail!("duplicate package in subdir {subdir}: {name} is also on line {line}");
        }
        let is_instance_id = ObjectRef::from_instance_id(version, HashMode::Any).is_ok();
        let pin = is_instance_id
            .then(|| Pin::new(&name, version))
            .transpose()?;
        self.packages.push(Package {
            line,
            name,
            version: version.to_owned(),
            pin,
        });
        Ok(())
    }

    /// Resolves all packages of the file at `path`.
    fn finish(self, resolved: &ResolvedVersions, path: &Path) -> EnsureFile {
        let why = match &self.resolved_versions {
            Some(file) => format!("is not in {}", file.display()),
            None => "is not an instance ID".to_owned(),
        };
        let mut pins = Vec::new();
        let mut seen = HashSet::new();
        let mut unresolved = Vec::new();
        for Package {
            line,
            name,
            version,
            pin,
        } in self.packages
        {
            match pin.as_ref().or_else(|| resolved.get(&name, &version)) {
                Some(pin) if seen.insert(pin.clone()) => pins.push(pin.clone()),
                Some(_) => {}
                None => {
                    let (file, version) = (shown(path), quote(&version));
                    unresolved.push(format!("{file}:{line}: version {version} of {name} {why}"));
                }
            }
        }
        // `cipd ensure-file-resolve` needs both settings: where to write the versions, and for
        // which platforms.
        let mut missing = Vec::new();
        if self.resolved_versions.is_none() {
            missing.push("`$ResolvedVersions cipd.versions`".to_owned());
        }
        if !self.verified_platforms.contains(self.platform) {
            missing.push(format!("`$VerifiedPlatform {}`", self.platform));
        }
        let mut hint = resolve_hint(path);
        if !missing.is_empty() {
            let (missing, file) = (missing.join(" and "), shown(path));
            hint = format!("put {missing} at the top of {file}, then {hint}");
        }
        EnsureFile {
            pins,
            service_url: self.service_url,
            skipped: self.skipped,
            unresolved,
            hint,
        }
    }
}

/// Returns whether packages may be deployed to `subdir`. An empty `subdir` is the root.
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

    use super::super::lines::tests::lines;
    use super::super::tests::{ID, SHA1};
    use super::*;

    /// Parses a text, and returns its packages or the first error.
    fn packages(text: &str) -> Result<Vec<String>, String> {
        let platform = "linux-amd64".parse().expect("a platform");
        let mut parser = Parser::new(&platform);
        for (line, number) in text.lines().zip(1..) {
            parser
                .parse_line(line, number)
                .map_err(|error| error.to_string())?;
        }
        let package = |package: &Package| match &package.pin {
            Some(pin) => pin.to_string(),
            None => format!("{}@{}", package.name, package.version),
        };
        Ok(parser.packages.iter().map(package).collect())
    }

    fn list(packages: &[&str]) -> Result<Vec<String>, String> {
        Ok(packages.iter().map(|&package| package.to_owned()).collect())
    }

    #[test]
    fn a_version_is_a_ref_a_tag_or_an_instance_id() {
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
    fn packages_for_other_platforms_are_skipped() {
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
    fn settings_come_first_in_upper_or_lower_case() {
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
    fn a_package_may_be_in_several_subdirs_but_only_once_in_each() {
        assert_eq!(
            packages("a one\n@Subdir x\na two\n@Subdir ${os}\na three"),
            list(&["a@one", "a@two", "a@three"])
        );
        assert_eq!(
            packages("a/linux one\n@Subdir x\nb one\n@Subdir\na/${os} two"),
            Err(r#"duplicate package in subdir "": "a/linux" is also on line 1"#.to_owned())
        );
        assert_eq!(
            packages("@Subdir ${os}\na one\n@Subdir linux\na one"),
            Err(r#"duplicate package in subdir "linux": "a" is also on line 2"#.to_owned())
        );
    }

    #[test]
    fn lines_that_cipd_refuses_are_refused() {
        let name =
            r#"must be a slash-separated path where each component matches "[a-z0-9_\-\.]+""#;
        let subdir =
            "must be a relative path with forward slashes, and without `.`, `..` or empty parts";
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
                r#"unrecognized paranoid mode "ZZZ": must be NotParanoid, CheckPresence or CheckIntegrity"#.into(),
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
        fn no_text_makes_the_parser_panic(
            text in "([$@]|ServiceURL|Subdir|VerifiedPlatform|[$][{]|os|=|[}]|[ \n/,-]|a|latest|.){0,40}",
        ) {
            let platform = Platform::of_this_machine();
            let mut parser = Parser::new(&platform);
            let mut lines = lines(text);
            while let Ok(Some(line)) = lines.next() {
                let _ = parser.parse_line(&line, lines.number());
            }
        }
    }
}
