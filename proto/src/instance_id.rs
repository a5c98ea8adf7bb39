//! Instance IDs and object references: the two forms of a package file's hash.
//!
//! CIPD identifies an instance by the hash of its package file. Messages carry the hash as an
//! [`ObjectRef`]: an algorithm and a digest in hex. People and files write it as an *instance
//! ID*. The rules are those of [`iid.go`] in the reference, where the functions are called
//! `ValidateInstanceID`, `ValidateObjectRef`, `ObjectRefToInstanceID` and
//! `InstanceIDToObjectRef`:
//!
//! - A SHA1 instance ID is the digest in lowercase hex: 40 characters.
//! - Every other instance ID is `base64(digest + algorithm)`, where the algorithm is one byte
//!   and base64 is URL-safe and has no padding. A SHA256 instance ID has 44 characters.
//! - An ID of 40 bytes is always read as SHA1. Any other ID has at least 28 bytes, because no
//!   digest is shorter than 160 bits.
//!
//! For some instances the reference accepts more than one ID: its base64 decoder skips line
//! breaks and ignores trailing bits, and a SHA1 digest may be in base64. [`ObjectRef`] parses
//! all these IDs. [`InstanceId`] accepts only the ID that the reference writes.
//!
//! [`iid.go`]: https://pkg.go.dev/go.chromium.org/luci/cipd/common#ValidateInstanceID

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::hex::{self, HexError};
use crate::text::quote;
use crate::wire;

/// Length of a SHA1 instance ID, in bytes.
const SHA1_ID_LEN: usize = 40;

/// Minimum length of a base64 instance ID, in bytes: 20 bytes of digest and the algorithm.
const MIN_BASE64_LEN: usize = 28;

/// The hash algorithm of an [`ObjectRef`]. Any number is accepted; two are known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct HashAlgo(i32);

impl HashAlgo {
    /// No algorithm.
    pub const UNSPECIFIED: Self = Self(0);
    /// SHA1, with digests of 20 bytes.
    pub const SHA1: Self = Self(1);
    /// SHA256, with digests of 32 bytes.
    pub const SHA256: Self = Self(2);

    /// Returns the number on the wire.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Returns the length of a digest in bytes, or `None` if the algorithm is unknown.
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

/// Which hash algorithms are acceptable: the reference's `HashAlgoValidation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the reference has these two")]
pub enum HashMode {
    /// All except the unspecified algorithm, as with the reference's `AnyHash`.
    Any,
    /// SHA1 and SHA256, as with the reference's `KnownHash`.
    Known,
}

/// The hash of a package file, as messages carry it.
///
/// Not validated when it is received: call [`validate`](Self::validate).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[expect(clippy::exhaustive_structs, reason = "the reference's message")]
pub struct ObjectRef {
    /// The hash algorithm.
    pub hash_algo: HashAlgo,
    /// The digest, in lowercase hex.
    pub hex_digest: String,
}

/// An error in an [`ObjectRef`] or an instance ID. The texts are the reference's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectRefError {
    /// The message has no object reference.
    #[error("the object ref is not provided")]
    Missing,
    /// The number of the algorithm is negative.
    #[error("bad negative hash algo")]
    NegativeAlgo,
    /// The algorithm is [`HashAlgo::UNSPECIFIED`].
    #[error("unspecified hash algo")]
    UnspecifiedAlgo,
    /// The algorithm is unknown.
    #[error("unsupported unknown hash algorithm #{0}")]
    UnknownAlgo(i32),
    /// The digest is not lowercase hex.
    #[error("invalid {algo} hex digest: {reason}")]
    #[non_exhaustive]
    HexDigest {
        /// The algorithm of the digest.
        algo: HashAlgo,
        /// The error in the digest.
        reason: HexError,
    },
    /// The digest does not have the length that its algorithm requires.
    #[error("invalid {algo} digest: expecting {want} chars, got {got}")]
    #[non_exhaustive]
    DigestLength {
        /// The algorithm of the digest.
        algo: HashAlgo,
        /// Required number of hex digits.
        want: usize,
        /// Actual number of hex digits.
        got: usize,
    },
    /// A string is not an instance ID.
    #[error("not a valid package instance ID {}: {reason}", quote(id))]
    #[non_exhaustive]
    InstanceId {
        /// The string.
        id: String,
        /// The error in it.
        reason: InstanceIdError,
    },
}

/// Why a string is not an instance ID. The texts are the reference's, except for
/// [`NotCanonical`](Self::NotCanonical).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceIdError {
    /// It is too short.
    #[error("not a valid size for an encoded digest")]
    Size,
    /// It is not URL-safe base64 without padding. Holds the offset of the first wrong byte.
    #[error("cannot base64 decode: illegal base64 data at input byte {0}")]
    Base64(usize),
    /// It decodes to zero bytes.
    #[error("empty")]
    Empty,
    /// It decodes to a digest of an odd length.
    #[error("the digest can't be odd")]
    OddDigest,
    /// It has no hash algorithm.
    #[error("unspecified hash algo (0)")]
    UnspecifiedAlgo,
    /// Its digest does not have the length that its algorithm requires.
    #[error("wrong digest len {got} for algo {algo}")]
    #[non_exhaustive]
    DigestLength {
        /// The algorithm.
        algo: HashAlgo,
        /// Length of the digest, in bytes.
        got: usize,
    },
    /// It has the length of a SHA1 digest in hex but is not hex.
    #[error(transparent)]
    Hex(HexError),
    /// Its algorithm is unknown.
    #[error("unsupported unknown hash algorithm #{0}")]
    UnknownAlgo(i32),
    /// The reference encodes the same instance differently.
    #[error("not the canonical encoding")]
    NotCanonical,
}

impl ObjectRef {
    /// Converts the wire message from a field that may be missing.
    ///
    /// # Errors
    ///
    /// [`ObjectRefError::Missing`] if the field is missing.
    pub fn from_wire(object: Option<wire::cipd::ObjectRef>) -> Result<Self, ObjectRefError> {
        object.map(Self::from).ok_or(ObjectRefError::Missing)
    }

    /// Parses an instance ID as the reference does. The ID need not be canonical.
    ///
    /// # Errors
    ///
    /// [`ObjectRefError::InstanceId`] if `id` is not an instance ID, or its algorithm is not
    /// acceptable in `mode`.
    pub fn from_instance_id(id: &str, mode: HashMode) -> Result<Self, ObjectRefError> {
        let (algo, digest) = decode(id, mode).map_err(|reason| invalid_id(id, reason))?;
        Ok(Self {
            hash_algo: HashAlgo(algo.into()),
            hex_digest: hex::encode(&digest),
        })
    }

    /// Returns the canonical instance ID.
    ///
    /// # Errors
    ///
    /// Any error of [`validate`](Self::validate) in `HashMode::Any`, and
    /// [`ObjectRefError::UnknownAlgo`] if the number of the algorithm does not fit a byte.
    pub fn to_instance_id(&self) -> Result<String, ObjectRefError> {
        let digest = self.digest(HashMode::Any)?;
        let number = self.hash_algo.number();
        let algo = u8::try_from(number).map_err(|_| ObjectRefError::UnknownAlgo(number))?;
        Ok(encode(algo, &digest))
    }

    /// Checks that the algorithm is acceptable and that the digest fits it.
    ///
    /// # Errors
    ///
    /// Any [`ObjectRefError`] except `Missing` and `InstanceId`. `UnknownAlgo` occurs only in
    /// `HashMode::Known`.
    pub fn validate(&self, mode: HashMode) -> Result<(), ObjectRefError> {
        self.digest(mode).map(drop)
    }

    /// Returns the bytes of a valid digest.
    fn digest(&self, mode: HashMode) -> Result<Vec<u8>, ObjectRefError> {
        let algo = self.hash_algo;
        match algo.number() {
            ..0 => return Err(ObjectRefError::NegativeAlgo),
            0 => return Err(ObjectRefError::UnspecifiedAlgo),
            number if mode == HashMode::Known && algo.digest_len().is_none() => {
                return Err(ObjectRefError::UnknownAlgo(number));
            }
            _ => {}
        }
        let digest = hex::decode(&self.hex_digest)
            .map_err(|reason| ObjectRefError::HexDigest { algo, reason })?;
        match algo.digest_len() {
            Some(want) if want != digest.len() => Err(ObjectRefError::DigestLength {
                algo,
                want: 2 * want,
                got: self.hex_digest.len(),
            }),
            _ => Ok(digest),
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

/// The hash of a package file, with a known algorithm.
///
/// Parsing accepts the canonical instance ID only, so two IDs are equal exactly when they
/// name the same file:
///
/// ```
/// use admission_proto::{HashAlgo, InstanceId};
///
/// let id = "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC".parse::<InstanceId>()?;
/// assert_eq!(id.object_ref().hash_algo, HashAlgo::SHA256);
/// # Ok::<(), admission_proto::ObjectRefError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId {
    /// The number of a known algorithm.
    algo: u8,
    /// The digest, padded with zeros.
    digest: [u8; 32],
}

impl InstanceId {
    /// Returns the same hash as messages carry it.
    #[must_use]
    pub fn object_ref(&self) -> ObjectRef {
        ObjectRef {
            hash_algo: HashAlgo(self.algo.into()),
            hex_digest: hex::encode(self.digest()),
        }
    }

    fn digest(&self) -> &[u8] {
        let len = HashAlgo(self.algo.into()).digest_len();
        &self.digest[..len.expect("the algorithm is known")]
    }
}

impl FromStr for InstanceId {
    type Err = ObjectRefError;

    /// Parses the canonical instance ID of a SHA1 or SHA256 digest.
    fn from_str(id: &str) -> Result<Self, ObjectRefError> {
        let (algo, bytes) = decode(id, HashMode::Known).map_err(|reason| invalid_id(id, reason))?;
        if encode(algo, &bytes) != id {
            return Err(invalid_id(id, InstanceIdError::NotCanonical));
        }
        let mut digest = [0; 32];
        digest[..bytes.len()].copy_from_slice(&bytes);
        Ok(Self { algo, digest })
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&encode(self.algo, self.digest()))
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As in the reference, non-zero trailing bits are accepted.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

const SHA1: u8 = HashAlgo::SHA1.number() as u8;

/// Returns the canonical instance ID.
fn encode(algo: u8, digest: &[u8]) -> String {
    if algo == SHA1 {
        hex::encode(digest)
    } else {
        BASE64.encode([digest, &[algo]].concat())
    }
}

/// Returns the algorithm and the digest of an instance ID, canonical or not.
fn decode(id: &str, mode: HashMode) -> Result<(u8, Vec<u8>), InstanceIdError> {
    if id.len() == SHA1_ID_LEN {
        return Ok((SHA1, hex::decode(id).map_err(InstanceIdError::Hex)?));
    }
    if id.len() < MIN_BASE64_LEN {
        return Err(InstanceIdError::Size);
    }
    let mut digest = decode_base64(id)?;
    let number = digest.pop().ok_or(InstanceIdError::Empty)?;
    if !digest.len().is_multiple_of(2) {
        return Err(InstanceIdError::OddDigest);
    }
    let algo = HashAlgo(number.into());
    if algo == HashAlgo::UNSPECIFIED {
        return Err(InstanceIdError::UnspecifiedAlgo);
    }
    match algo.digest_len() {
        Some(want) if want != digest.len() => Err(InstanceIdError::DigestLength {
            algo,
            got: digest.len(),
        }),
        None if mode == HashMode::Known => Err(InstanceIdError::UnknownAlgo(algo.number())),
        _ => Ok((number, digest)),
    }
}

/// Decodes like Go, which skips line breaks but counts them in the offset of an error.
fn decode_base64(id: &str) -> Result<Vec<u8>, InstanceIdError> {
    let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let is_digit =
        |byte: &u8| matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    let mut digits = id.as_bytes().to_vec();
    digits.retain(|byte| !is_line_end(byte));
    BASE64.decode(digits).map_err(|_| {
        let illegal = id
            .bytes()
            .position(|byte| !is_digit(&byte) && !is_line_end(&byte));
        // If every byte is legal, the error is at the last byte: one digit is left over there.
        InstanceIdError::Base64(illegal.unwrap_or(id.len() - 1))
    })
}

fn invalid_id(id: &str, reason: InstanceIdError) -> ObjectRefError {
    ObjectRefError::InstanceId {
        id: id.to_owned(),
        reason,
    }
}
