//! Platforms, and names that depend on them: `infra/tools/cipd/${platform}`.

use std::env::consts;
use std::fmt;
use std::str::FromStr;

use admission_proto::quote;

/// What packages are deployed to, such as `linux-amd64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    os: String,
    arch: String,
}

/// A string that is not the name of a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("platform must be <os>-<arch>, got {}", quote(.0))]
pub(crate) struct PlatformError(String);

impl Platform {
    /// Returns the platform that this program was built for.
    pub(super) fn of_this_machine() -> Self {
        Self {
            os: consts::OS.to_owned(),
            // CIPD has Go's names, which differ on the platforms that are supported here.
            arch: match consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
        }
    }

    /// Puts this platform in the place of the variables of `template`.
    pub(super) fn expand(&self, template: &str) -> Expansion {
        let mut expansion = Expansion {
            applies: true,
            text: Ok(String::new()),
        };
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
            match self.value(variable) {
                Some(value) => {
                    expansion.applies &=
                        condition.is_none_or(|values| values.split(',').any(|one| one == value));
                    text.push_str(&value);
                }
                None => {
                    expansion.text = Err(TemplateError::UnknownVariable(parameter.to_owned()));
                }
            }
        }
        text.push_str(rest);
        if expansion.text.is_ok() {
            expansion.text = if text.contains('$') {
                Err(TemplateError::Unprocessed(template.to_owned()))
            } else {
                Ok(text)
            };
        }
        expansion
    }

    fn value(&self, variable: &str) -> Option<String> {
        match variable {
            "os" => Some(self.os.clone()),
            "arch" => Some(self.arch.clone()),
            "platform" => Some(self.to_string()),
            _ => None,
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(platform: &str) -> Result<Self, PlatformError> {
        match platform.split_once('-') {
            Some((os, arch)) if !os.is_empty() && !arch.is_empty() && !arch.contains('-') => {
                Ok(Self {
                    os: os.to_owned(),
                    arch: arch.to_owned(),
                })
            }
            _ => Err(PlatformError(platform.to_owned())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.os, self.arch)
    }
}

/// What became of a template on one platform.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expansion {
    /// Whether all its conditions hold, such as `${os=linux,mac}`. If not, the rest of it
    /// may be wrong as well: it is not for this platform.
    pub(super) applies: bool,
    /// The template with all conditions taken as met.
    pub(super) text: Result<String, TemplateError>,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("unknown variable {}: there are os, arch and platform", quote(&format!("${{{_0}}}")))]
    UnknownVariable(String),
    #[error("unable to process some variables in {}", quote(.0))]
    Unprocessed(String),
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
    fn a_condition_that_does_not_hold_skips_whatever_else_is_wrong() {
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
    fn what_is_no_variable_is_refused() {
        for (template, refused) in [
            (
                "a/${not_good}",
                r#"unknown variable "${not_good}": there are os, arch and platform"#,
            ),
            (
                "a/${OS=linux}",
                r#"unknown variable "${OS=linux}": there are os, arch and platform"#,
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
        assert_eq!(platform.to_string().parse(), Ok(platform));
        for bad in ["", "linux", "-", "linux-", "-amd64", "linux-amd64-v2"] {
            assert_eq!(bad.parse::<Platform>(), Err(PlatformError(bad.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn a_text_without_a_dollar_stays_as_it_is(text in "[^$]*") {
            prop_assert_eq!(expand(&text), Ok(Some(text)));
        }

        #[test]
        fn no_dollar_is_left(template in "([$]|[{]|[}]|os|arch|=|,|.){0,20}") {
            if let Ok(Some(text)) = expand(&template) {
                prop_assert!(!text.contains('$'));
            }
        }
    }
}
