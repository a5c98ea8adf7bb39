//! The spelling of an object reference as an instance ID.
//!
//! SHA1 is spelled as its digest in hex; every other algorithm as the URL-safe
//! base64, without padding, of the digest and one byte for the algorithm.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::hex::{self, HexError};
use super::{HashAlgo, HashMode, ObjectRef};

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

/// What is wrong with the spelling of an instance ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceIdError {
    /// It is too short.
    #[error("not a valid size for an encoded digest")]
    Size,
    /// It is not URL-safe base64 without padding; tells the first byte that is wrong.
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

/// Reads an instance ID, in any of its spellings.
pub(super) fn decode(id: &str, mode: HashMode) -> Result<ObjectRef, InstanceIdError> {
    if id.len() == SHA1_HEX {
        hex::check(id).map_err(InstanceIdError::Hex)?;
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
    let hash_algo = HashAlgo::from(i32::from(algo));
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
        hex_digest: hex::to_hex(digest),
    })
}

/// Spells any algorithm but SHA1.
pub(crate) fn encode(algo: u8, digest: impl Iterator<Item = u8>) -> String {
    let bytes: Vec<u8> = digest.chain([algo]).collect();
    BASE64.encode(bytes)
}

/// Decodes as Go's decoder does, which skips line ends but counts them in positions.
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
        // If every byte is legal, the last digit stands alone and tells but six bits.
        InstanceIdError::Base64(illegal.unwrap_or(id.len() - 1))
    })
}
