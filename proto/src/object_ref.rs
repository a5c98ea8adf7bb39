//! Object references, and the instance IDs that spell them.

mod hex;
mod spelling;

use std::fmt;

use crate::quote::quote;
use crate::wire;

pub use hex::HexError;
pub(crate) use hex::{hex_bytes, to_hex};
pub use spelling::InstanceIdError;
pub(crate) use spelling::encode;

/// The hash algorithm of an [`ObjectRef`]. Any number may arrive; two are known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct HashAlgo(i32);

impl HashAlgo {
    /// No algorithm was given.
    pub const UNSPECIFIED: Self = Self(0);
    /// SHA1; 20 bytes of digest.
    pub const SHA1: Self = Self(1);
    /// SHA256; 32 bytes of digest.
    pub const SHA256: Self = Self(2);

    /// Returns the number as it stands on the wire.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Returns the length of its digests in bytes, or `None` if it is not known.
    #[must_use]
    pub const fn digest_len(self) -> Option<usize> {
        match self {
            Self::SHA1 => Some(20),
            Self::SHA256 => Some(32),
            _ => None,
        }
    }
}

impl From<i32> for HashAlgo {
    fn from(number: i32) -> Self {
        Self(number)
    }
}

impl fmt::Display for HashAlgo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UNSPECIFIED => f.write_str("HASH_ALGO_UNSPECIFIED"),
            Self::SHA1 => f.write_str("SHA1"),
            Self::SHA256 => f.write_str("SHA256"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Debug for HashAlgo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names a package instance by the hash of its file.
///
/// It is what arrived: [`validate`](Self::validate) tells whether it makes sense.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[expect(clippy::exhaustive_structs, reason = "the reference's message")]
pub struct ObjectRef {
    /// How the digest was made.
    pub hash_algo: HashAlgo,
    /// The digest, in lowercase hex.
    pub hex_digest: String,
}

/// Which hash algorithms are acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third reading")]
pub enum HashMode {
    /// Any but the unspecified: only the syntax is checked.
    Any,
    /// SHA1 and SHA256.
    Known,
}

/// What is wrong with an [`ObjectRef`] or with the spelling of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectRefError {
    /// There is none where one is needed.
    #[error("the object ref is not provided")]
    Missing,
    /// The algorithm's number is negative.
    #[error("bad negative hash algo")]
    NegativeAlgo,
    /// The algorithm is not specified in an [`ObjectRef`].
    #[error("unspecified hash algo")]
    UnspecifiedAlgo,
    /// The algorithm is not one of the known ones.
    #[error("unsupported unknown hash algorithm #{0}")]
    UnknownAlgo(i32),
    /// The digest is not lowercase hex.
    #[error("invalid {algo} hex digest: {reason}")]
    HexDigest {
        /// The algorithm of the digest.
        algo: HashAlgo,
        /// What is wrong with the hex string.
        reason: HexError,
    },
    /// The digest has not the algorithm's length.
    #[error("invalid {algo} digest: expecting {want} chars, got {got}")]
    DigestLength {
        /// The algorithm of the digest.
        algo: HashAlgo,
        /// Hex digits expected.
        want: usize,
        /// Hex digits there.
        got: usize,
    },
    /// A string is not an instance ID.
    #[error("not a valid package instance ID {}: {reason}", quote(id))]
    InstanceId {
        /// The string.
        id: String,
        /// What is wrong with it.
        reason: InstanceIdError,
    },
}

impl ObjectRef {
    /// Reads the wire form from a field that may have been left out.
    ///
    /// # Errors
    ///
    /// [`ObjectRefError::Missing`] if it was.
    pub fn from_wire(object: Option<wire::cipd::ObjectRef>) -> Result<Self, ObjectRefError> {
        object.map(Self::from).ok_or(ObjectRefError::Missing)
    }

    /// Reads an instance ID as the reference does, which lets several spellings of
    /// one instance pass. [`InstanceId`](crate::InstanceId) takes the canonical one only.
    ///
    /// # Errors
    ///
    /// [`ObjectRefError::InstanceId`] if `id` spells no reference acceptable in `mode`.
    pub fn from_instance_id(id: &str, mode: HashMode) -> Result<Self, ObjectRefError> {
        spelling::decode(id, mode).map_err(|reason| ObjectRefError::InstanceId {
            id: id.to_owned(),
            reason,
        })
    }

    /// Spells the reference as an instance ID, canonically.
    ///
    /// # Errors
    ///
    /// If [`validate`](Self::validate) refuses it in `HashMode::Any`, or its
    /// algorithm's number does not fit the one byte an instance ID has for it.
    pub fn to_instance_id(&self) -> Result<String, ObjectRefError> {
        self.validate(HashMode::Any)?;
        if self.hash_algo == HashAlgo::SHA1 {
            return Ok(self.hex_digest.clone());
        }
        let number = self.hash_algo.number();
        let algo = u8::try_from(number).map_err(|_| ObjectRefError::UnknownAlgo(number))?;
        Ok(spelling::encode(algo, hex_bytes(&self.hex_digest)))
    }

    /// Checks that algorithm and digest fit together.
    ///
    /// # Errors
    ///
    /// Any [`ObjectRefError`] but `Missing` and `InstanceId`; `UnknownAlgo` only in
    /// `HashMode::Known`.
    pub fn validate(&self, mode: HashMode) -> Result<(), ObjectRefError> {
        let algo = self.hash_algo;
        match algo.number() {
            ..0 => return Err(ObjectRefError::NegativeAlgo),
            0 => return Err(ObjectRefError::UnspecifiedAlgo),
            number if mode == HashMode::Known && algo.digest_len().is_none() => {
                return Err(ObjectRefError::UnknownAlgo(number));
            }
            _ => {}
        }
        hex::check(&self.hex_digest)
            .map_err(|reason| ObjectRefError::HexDigest { algo, reason })?;
        let got = self.hex_digest.len();
        match algo.digest_len() {
            Some(bytes) if got != 2 * bytes => Err(ObjectRefError::DigestLength {
                algo,
                want: 2 * bytes,
                got,
            }),
            _ => Ok(()),
        }
    }
}

impl From<wire::cipd::ObjectRef> for ObjectRef {
    fn from(object: wire::cipd::ObjectRef) -> Self {
        Self {
            hash_algo: HashAlgo(object.hash_algo),
            hex_digest: object.hex_digest,
        }
    }
}

impl From<ObjectRef> for wire::cipd::ObjectRef {
    fn from(object: ObjectRef) -> Self {
        Self {
            hash_algo: object.hash_algo.number(),
            hex_digest: object.hex_digest,
        }
    }
}
