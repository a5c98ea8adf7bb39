//! Platforms, and package names that depend on them: `infra/tools/cipd/${platform}`.

use std::env::consts;
use std::fmt;
use std::str::FromStr;

use admission_proto::quote;
use anyhow::{anyhow, bail};

/// The platform that packages are deployed to, such as `linux-amd64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    os: String,
    arch: String,
}

/// A template after its variables were replaced for one platform.
#[derive(Debug)]
pub(crate) struct Expansion {
    /// Whether all conditions hold, such as `${os=linux,mac}`. If not, the template is for
    /// other platforms, and `cipd` ignores errors in it.
    pub(crate) applies: bool,
    /// The text as if all conditions held.
    pub(crate) text: anyhow::Result<String>,
}

impl Platform {
    /// Returns the platform that this program was built for.
    pub(crate) fn of_this_machine() -> Self {
        Self {
            os: consts::OS.to_owned(),
            // CIPD uses Go's names, which differ on the supported platforms.
            arch: match consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
        }
    }

    /// Replaces the variables of `template` with their values for this platform.
    pub(crate) fn expand(&self, template: &str) -> Expansion {
        let mut applies = true;
        let mut unknown = None;
        let mut text = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((before, parameter)) = rest.split_once("${")
            && let Some((parameter, after)) = parameter.split_once('}')
        {
            text.push_str(before);
            rest = after;
            let (variable, condition) = match parameter.split_once('=') {
                Some((variable, condition)) => (variable, Some(condition)),
                None => (parameter, None),
            };
            let value = match variable {
                "os" => self.os.clone(),
                "arch" => self.arch.clone(),
                "platform" => self.to_string(),
                _ => {
                    unknown = Some(parameter);
                    continue;
                }
            };
            applies &= condition.is_none_or(|values| values.split(',').any(|one| one == value));
            text.push_str(&value);
        }
        text.push_str(rest);
        let text = match unknown {
            Some(parameter) => {
                let variable = quote(&format!("${{{parameter}}}"));
                Err(anyhow!(
                    "unknown variable {variable}: must be os, arch or platform"
                ))
            }
            None if text.contains('$') => {
                let template = quote(template);
                Err(anyhow!("unable to process some variables in {template}"))
            }
            None => Ok(text),
        };
        Expansion { applies, text }
    }
}

impl FromStr for Platform {
    type Err = anyhow::Error;

    fn from_str(platform: &str) -> anyhow::Result<Self> {
        match platform.split_once('-') {
            Some((os, arch)) if !os.is_empty() && !arch.is_empty() && !arch.contains('-') => {
                Ok(Self {
                    os: os.to_owned(),
                    arch: arch.to_owned(),
                })
            }
            _ => bail!("platform must be <os>-<arch>, got {}", quote(platform)),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.os, self.arch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expand(template: &str) -> Result<Option<String>, String> {
        let platform: Platform = "linux-arm64".parse().expect("a platform");
        let Expansion { applies, text } = platform.expand(template);
        if !applies {
            return Ok(None);
        }
        text.map(Some).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_are_replaced_everywhere() {
        for (template, text) in [
            ("", ""),
            ("a/b", "a/b"),
            ("a/${platform}", "a/linux-arm64"),
            ("${os}/${arch}/${os}x", "linux/arm64/linuxx"),
            ("a/${os=linux}", "a/linux"),
            ("a/${os=mac,linux}-${arch=arm64,amd64}", "a/linux-arm64"),
            ("a/${platform=mac-arm64,linux-arm64}", "a/linux-arm64"),
        ] {
            assert_eq!(expand(template), Ok(Some(text.to_owned())), "{template}");
        }
    }

    #[test]
    fn an_unmet_condition_hides_later_errors() {
        for template in [
            "a/${os=mac}",
            "a/${os=}",
            "a/${os=lin,linux-arm64}",
            "a/${os= linux}",
            "${os=linux}/${arch=386}",
            "a/${os=mac}/${nonsense}",
            "a/${os=mac}/$",
        ] {
            assert_eq!(expand(template), Ok(None), "{template}");
        }
    }

    #[test]
    fn unknown_variables_are_refused() {
        for (template, refused) in [
            (
                "a/${not_good}",
                r#"unknown variable "${not_good}": must be os, arch or platform"#,
            ),
            (
                "a/${OS=linux}",
                r#"unknown variable "${OS=linux}": must be os, arch or platform"#,
            ),
            (
                "a/$not_good",
                r#"unable to process some variables in "a/$not_good""#,
            ),
            (
                r"a/\${os}$",
                r#"unable to process some variables in "a/\\${os}$""#,
            ),
            ("a/${os", r#"unable to process some variables in "a/${os""#),
        ] {
            assert_eq!(expand(template), Err(refused.to_owned()));
        }
    }

    #[test]
    fn a_platform_is_an_os_and_an_architecture() {
        let platform = Platform::of_this_machine();
        let parsed: Platform = platform.to_string().parse().expect("a platform");
        assert_eq!(parsed, platform);
        for bad in ["", "linux", "-", "linux-", "-amd64", "linux-amd64-v2"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_text_without_variables_is_unchanged(text in "[^$]*") {
            prop_assert_eq!(expand(&text), Ok(Some(text)));
        }

        #[test]
        fn no_dollar_sign_is_left(template in "([$]|[{]|[}]|os|arch|=|,|.){0,20}") {
            if let Ok(Some(text)) = expand(&template) {
                prop_assert!(!text.contains('$'));
            }
        }
    }
}
