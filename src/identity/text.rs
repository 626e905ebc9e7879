//! The two text forms of 32 bytes: z-base-32 (52 characters, as the HyperDHT world writes keys) and hex (64 digits).

use std::sync::LazyLock;

use data_encoding::{Encoding, HEXLOWER, HEXLOWER_PERMISSIVE, Specification};
use zeroize::{Zeroize, Zeroizing};

/// Of a key and of a secret.
const BYTES: usize = 32;
/// 256 bits at 5 a character, rounded up.
const Z_BASE_32_LEN: usize = 52;
/// 256 bits at 4 a digit.
const HEX_LEN: usize = 64;

/// Why a text or a byte string is not a key or a secret. Never carries the text: it may have been a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A text of another length.
    #[error("expected 52 characters of z-base-32 or 64 hex digits, got {len} characters")]
    Length {
        /// How many characters came.
        len: usize,
    },
    /// A text of the right length with characters (or a last character) outside the alphabet.
    #[error("not {form}: wrong character at position {position}")]
    Character {
        /// `z-base-32` or `hex`, by the length.
        form: &'static str,
        /// Position of the first wrong character, from 0.
        position: usize,
    },
    /// 32 bytes that are no point of the curve, or one of its few weak points.
    #[error("these 32 bytes are not an Ed25519 public key")]
    NotAKey,
}

static Z_BASE_32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("ybndrfg8ejkmcpqxot1uwisza345h769");
    spec.encoding().expect("the z-base-32 alphabet has 32 distinct symbols")
});

pub(super) fn to_z_base_32(bytes: &[u8; BYTES]) -> String {
    Z_BASE_32.encode(bytes)
}

pub(super) fn to_hex(bytes: &[u8; BYTES]) -> String {
    HEXLOWER.encode(bytes)
}

/// Any bytes as z-base-32.
#[cfg(feature = "client")]
pub(crate) fn encode_text(bytes: &[u8]) -> String {
    Z_BASE_32.encode(bytes)
}

/// The bytes of a text in z-base-32; none if it is something else.
#[cfg(feature = "client")]
pub(crate) fn decode_text(text: &str) -> Option<Vec<u8>> {
    Z_BASE_32.decode(text.as_bytes()).ok()
}

/// Parses either form, by length. The buffer is wiped on drop: the text may be a secret.
pub(super) fn parse(text: &str) -> Result<Zeroizing<[u8; BYTES]>, KeyError> {
    let (form, encoding) = match text.len() {
        Z_BASE_32_LEN => ("z-base-32", &*Z_BASE_32),
        HEX_LEN => ("hex", &HEXLOWER_PERMISSIVE),
        _ => return Err(KeyError::Length { len: text.chars().count() }),
    };
    let mut decoded =
        encoding.decode(text.as_bytes()).map_err(|error| KeyError::Character { form, position: error.position })?;
    let mut bytes = Zeroizing::new([0; BYTES]);
    bytes.copy_from_slice(&decoded);
    decoded.zeroize();
    Ok(bytes)
}
