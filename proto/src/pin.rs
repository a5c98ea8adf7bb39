//! Pins: the package instances that checks are about.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::text::quote;
use crate::{InstanceId, ObjectRefError};

/// A package name and the ID of an instance of that package.
///
/// A pin is always valid: the name is well formed and the instance ID is canonical, so two
/// pins are equal exactly when they mean the same file. Cloning is cheap.
///
/// ```
/// use admission_proto::Pin;
///
/// let pin: Pin = "tools/git:qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC".parse()?;
/// assert_eq!(pin.package(), "tools/git");
/// # Ok::<(), admission_proto::PinError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pin {
    package: Arc<str>,
    instance: InstanceId,
}

/// An error in a [`Pin`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// A component of the package name is empty or has a forbidden character.
    #[error(
        r#"invalid package name {}: must be a slash-separated path where each component matches "[a-z0-9_\-\.]+""#,
        quote(.0)
    )]
    PackageName(String),
    /// A component of the package name has only dots.
    #[error("invalid package name {}: dots-only path components are forbidden", quote(.0))]
    DotsOnly(String),
    /// The instance ID is not valid or not canonical.
    #[error(transparent)]
    InstanceId(#[from] ObjectRefError),
    /// The string has no colon between package name and instance ID.
    #[error("not a pin {}: must be package:instance_id", quote(.0))]
    NoColon(String),
}

impl Pin {
    /// Creates a pin. The package name is checked first.
    ///
    /// # Errors
    ///
    /// [`PinError`] if the package name or the instance ID is not valid.
    pub fn new(package: &str, instance_id: &str) -> Result<Self, PinError> {
        validate_package_name(package)?;
        Ok(Self {
            instance: instance_id.parse()?,
            package: package.into(),
        })
    }

    /// Returns the package name.
    #[must_use]
    pub fn package(&self) -> &str {
        &self.package
    }

    /// Returns the instance ID.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.instance
    }
}

impl FromStr for Pin {
    type Err = PinError;

    /// Parses `package:instance_id`.
    fn from_str(pin: &str) -> Result<Self, PinError> {
        let Some((package, instance_id)) = pin.split_once(':') else {
            return Err(PinError::NoColon(pin.to_owned()));
        };
        Self::new(package, instance_id)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.package, self.instance)
    }
}

/// Checks a package name: components of `[a-z0-9_\-.]+` joined by single slashes.
///
/// # Errors
///
/// [`PinError::PackageName`] or [`PinError::DotsOnly`].
pub fn validate_package_name(name: &str) -> Result<(), PinError> {
    let is_legal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-' | '.');
    let mut components = name.split('/');
    if components
        .clone()
        .any(|part| part.is_empty() || !part.chars().all(is_legal))
    {
        return Err(PinError::PackageName(name.to_owned()));
    }
    if components.any(|part| part.chars().all(|c| c == '.')) {
        return Err(PinError::DotsOnly(name.to_owned()));
    }
    Ok(())
}
