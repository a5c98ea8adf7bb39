//! Pins: what is to be judged.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::object_ref::{encode, hex_bytes, to_hex};
use crate::quote::quote;
use crate::{HashAlgo, HashMode, InstanceIdError, ObjectRef, ObjectRefError};

/// How an instance ID names SHA256.
const SHA256: u8 = HashAlgo::SHA256.number() as u8;

/// A package name and the instance of it that is to be deployed.
///
/// Always valid: the name is well formed, the hash is a known one, and the instance
/// ID had its canonical spelling, so that two pins are equal exactly when they mean
/// the same file. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pin {
    package: Arc<str>,
    instance: InstanceId,
}

/// The hash of a package file, by an algorithm that is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId {
    algo: Algo,
    /// A SHA1 digest fills the first 20 bytes, the rest is zero.
    digest: [u8; 32],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Algo {
    Sha1,
    Sha256,
}

/// Why something is not a [`Pin`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// A component of the package name has a character that none may have, or is empty.
    #[error(
        r#"invalid package name {}: must be a slash-separated path where each component matches "[a-z0-9_\-\.]+""#,
        quote(.0)
    )]
    PackageName(String),
    /// A component of the package name has nothing but dots.
    #[error("invalid package name {}: dots-only path components are forbidden", quote(.0))]
    DotsOnly(String),
    /// The instance ID is not one, or not spelled canonically.
    #[error(transparent)]
    InstanceId(#[from] ObjectRefError),
    /// There is no colon between package and instance ID.
    #[error("not a pin {}: must be package:instance_id", quote(.0))]
    NoColon(String),
}

impl Pin {
    /// Creates a pin from its two parts; the name is checked first.
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

    /// Returns the package's name.
    #[must_use]
    pub fn package(&self) -> &str {
        &self.package
    }

    /// Returns the instance.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.instance
    }
}

impl FromStr for Pin {
    type Err = PinError;

    /// Reads `package:instance_id`.
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

impl InstanceId {
    /// Returns the reference that stands for it on the wire.
    #[must_use]
    pub fn object_ref(&self) -> ObjectRef {
        ObjectRef {
            hash_algo: match self.algo {
                Algo::Sha1 => HashAlgo::SHA1,
                Algo::Sha256 => HashAlgo::SHA256,
            },
            hex_digest: to_hex(self.digest()),
        }
    }

    /// Spells it canonically.
    fn spelled(&self) -> String {
        match self.algo {
            Algo::Sha1 => to_hex(self.digest()),
            Algo::Sha256 => encode(SHA256, self.digest().iter().copied()),
        }
    }

    fn digest(&self) -> &[u8] {
        match self.algo {
            Algo::Sha1 => &self.digest[..20],
            Algo::Sha256 => &self.digest,
        }
    }
}

impl FromStr for InstanceId {
    type Err = ObjectRefError;

    /// Reads the canonical spelling of a SHA1 or SHA256 reference.
    fn from_str(id: &str) -> Result<Self, ObjectRefError> {
        let object = ObjectRef::from_instance_id(id, HashMode::Known)?;
        let mut digest = [0; 32];
        for (to, from) in digest.iter_mut().zip(hex_bytes(&object.hex_digest)) {
            *to = from;
        }
        let algo = match object.hash_algo {
            HashAlgo::SHA1 => Algo::Sha1,
            _ => Algo::Sha256,
        };
        let instance = Self { algo, digest };
        if instance.spelled() != id {
            return Err(ObjectRefError::InstanceId {
                id: id.to_owned(),
                reason: InstanceIdError::NotCanonical,
            });
        }
        Ok(instance)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.spelled())
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Checks a package name: components of `[a-z0-9_\-.]+` joined by single slashes.
///
/// # Errors
///
/// [`PinError::PackageName`] or [`PinError::DotsOnly`].
pub fn validate_package_name(name: &str) -> Result<(), PinError> {
    let legal = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-' | '.');
    let mut components = name.split('/');
    if components
        .clone()
        .any(|part| part.is_empty() || !part.chars().all(legal))
    {
        return Err(PinError::PackageName(name.to_owned()));
    }
    if components.any(|part| part.chars().all(|c| c == '.')) {
        return Err(PinError::DotsOnly(name.to_owned()));
    }
    Ok(())
}
