//! Object references, and the instance IDs that spell them.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::wire;

/// Fewest characters of an instance ID in base64: 20 bytes of digest and the algorithm.
const MIN_ENCODED: usize = 28;

/// Characters of a SHA1 instance ID, which is the digest in hex.
const SHA1_HEX: usize = 40;

/// Decodes what the reference decodes: non-zero trailing bits are let through here
/// and refused where a canonical spelling is asked for.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

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
    #[error("not a valid package instance ID {id:?}: {reason}")]
    InstanceId {
        /// The string.
        id: String,
        /// What is wrong with it.
        reason: InstanceIdError,
    },
}

/// What is wrong with a hex string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HexError {
    /// There are no digits.
    #[error("empty hex string")]
    Empty,
    /// The number of digits is odd.
    #[error("uneven number of symbols in the hex string")]
    Uneven,
    /// A character is not a lowercase hex digit.
    #[error("bad lowercase hex string {string:?}, wrong char {wrong}")]
    Digit {
        /// The string.
        string: String,
        /// Its first wrong character.
        wrong: char,
    },
}

/// What is wrong with the spelling of an instance ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceIdError {
    /// It is too short.
    #[error("not a valid size for an encoded digest")]
    Size,
    /// It is not URL-safe base64 without padding.
    #[error("cannot base64 decode: illegal base64 data at input byte {0}")]
    Base64(usize),
    /// It decodes to nothing.
    #[error("empty")]
    Empty,
    /// It decodes to a digest of an odd length.
    #[error("the digest can't be odd")]
    OddDigest,
    /// It names no algorithm.
    #[error("unspecified hash algo (0)")]
    UnspecifiedAlgo,
    /// Its digest has not the algorithm's length.
    #[error("wrong digest len {got} for algo {algo}")]
    DigestLength {
        /// The algorithm it names.
        algo: HashAlgo,
        /// Bytes of digest there.
        got: usize,
    },
    /// It has the length of a SHA1 hex digest but is none.
    #[error(transparent)]
    Hex(HexError),
    /// Its algorithm is not one of the known ones.
    #[error("unsupported unknown hash algorithm #{0}")]
    UnknownAlgo(i32),
    /// It is one of several spellings of the same instance, and not the one to be used.
    #[error("not the canonical encoding")]
    NotCanonical,
}

impl ObjectRef {
    /// Reads an instance ID as the reference does, which lets several spellings of
    /// one instance pass. [`InstanceId`](crate::InstanceId) takes the canonical one only.
    ///
    /// # Errors
    ///
    /// [`ObjectRefError::InstanceId`] if `id` spells no reference acceptable in `mode`.
    pub fn from_instance_id(id: &str, mode: HashMode) -> Result<Self, ObjectRefError> {
        decode(id, mode).map_err(|reason| ObjectRefError::InstanceId {
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
        let mut bytes: Vec<u8> = hex_bytes(&self.hex_digest).collect();
        bytes.push(algo);
        Ok(BASE64.encode(bytes))
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
        check_hex(&self.hex_digest)
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

fn decode(id: &str, mode: HashMode) -> Result<ObjectRef, InstanceIdError> {
    if id.len() == SHA1_HEX {
        check_hex(id).map_err(InstanceIdError::Hex)?;
        return Ok(ObjectRef {
            hash_algo: HashAlgo::SHA1,
            hex_digest: id.to_owned(),
        });
    }
    if id.len() < MIN_ENCODED {
        return Err(InstanceIdError::Size);
    }
    let bytes = decode_base64(id)?;
    let Some((&algo, digest)) = bytes.split_last() else {
        return Err(InstanceIdError::Empty);
    };
    if !digest.len().is_multiple_of(2) {
        return Err(InstanceIdError::OddDigest);
    }
    let hash_algo = HashAlgo(algo.into());
    if hash_algo == HashAlgo::UNSPECIFIED {
        return Err(InstanceIdError::UnspecifiedAlgo);
    }
    match hash_algo.digest_len() {
        Some(want) if want != digest.len() => {
            return Err(InstanceIdError::DigestLength {
                algo: hash_algo,
                got: digest.len(),
            });
        }
        None if mode == HashMode::Known => return Err(InstanceIdError::UnknownAlgo(algo.into())),
        _ => {}
    }
    Ok(ObjectRef {
        hash_algo,
        hex_digest: to_hex(digest),
    })
}

/// Decodes as Go's decoder does: line ends are skipped, positions count them.
fn decode_base64(id: &str) -> Result<Vec<u8>, InstanceIdError> {
    use base64::DecodeError::{
        InvalidByte, InvalidLastSymbol, InvalidLength, InvalidPadding,
    };
    let kept: Vec<(usize, u8)> = id
        .bytes()
        .enumerate()
        .filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'))
        .collect();
    let plain: Vec<u8> = kept.iter().map(|&(_, byte)| byte).collect();
    BASE64.decode(&plain).map_err(|error| {
        let at = match error {
            InvalidByte(at, _) => at,
            InvalidLength(_) | InvalidPadding => plain.len().saturating_sub(1),
            InvalidLastSymbol { .. } => plain.len().saturating_sub(1),
        };
        InstanceIdError::Base64(kept.get(at).map_or(at, |&(at, _)| at))
    })
}

fn check_hex(string: &str) -> Result<(), HexError> {
    if string.is_empty() {
        return Err(HexError::Empty);
    }
    if !string.len().is_multiple_of(2) {
        return Err(HexError::Uneven);
    }
    match string
        .chars()
        .find(|c| !matches!(c, '0'..='9' | 'a'..='f'))
    {
        None => Ok(()),
        Some(wrong) => Err(HexError::Digit {
            string: string.to_owned(),
            wrong,
        }),
    }
}

/// Spells bytes in lowercase hex.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Reads hex that [`check_hex`] has accepted.
pub(crate) fn hex_bytes(string: &str) -> impl Iterator<Item = u8> + '_ {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit - b'a' + 10,
    };
    string
        .as_bytes()
        .chunks_exact(2)
        .map(move |pair| nibble(pair[0]) << 4 | nibble(pair[1]))
}
