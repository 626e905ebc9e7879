//! The shared secret: a client needs this secret and the scraper's public key to register.

use std::{fmt, str::FromStr};

use blake2::{Blake2s256, Digest};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::text::{self, KeyError};

/// 32 random bytes that a scraper and its clients share. The register handshake proves them and never sends them.
///
/// Compared in constant time, wiped on drop, printed as `SharedSecret(..)`.
///
/// ```
/// use narthex::{SharedSecret, identity::{create_secret, load_secret}};
///
/// let directory = tempfile::tempdir()?;
/// let file = directory.path().join("fleet.secret");
/// let secret = SharedSecret::generate();
/// create_secret(&file, &secret)?;
/// assert_eq!(load_secret(&file)?, secret);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SharedSecret(Zeroizing<[u8; 32]>);

impl SharedSecret {
    /// A fresh secret from the operating system's randomness.
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).expect("the operating system gives randomness");
        Self(bytes)
    }

    /// Takes 32 bytes, which should be random.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves, for the Noise handshake.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The text form (z-base-32), for a secret file.
    pub fn expose_text(&self) -> Zeroizing<String> {
        Zeroizing::new(text::to_z_base_32(&self.0))
    }

    /// The id by which a client names the secret that the handshake will prove.
    ///
    /// The first 8 bytes of BLAKE2s-256 over a fixed prefix and the secret. The id reveals nothing: the secret has
    /// 256 bits, and the id travels encrypted to the scraper's static key.
    #[doc(hidden)]
    pub fn id(&self) -> SecretId {
        let hash = Blake2s256::new().chain_update(b"narthex secret id v1").chain_update(self.0.as_slice()).finalize();
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        SecretId(id)
    }
}

impl PartialEq for SharedSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for SharedSecret {}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

impl FromStr for SharedSecret {
    type Err = KeyError;

    /// Reads z-base-32 or hex.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        text::parse(text).map(Self)
    }
}

/// Names one of a scraper's shared secrets without revealing it; see [`SharedSecret::id`].
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretId(pub [u8; 8]);

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl FromStr for SecretId {
    type Err = SecretIdError;

    fn from_str(text: &str) -> Result<Self, SecretIdError> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| SecretIdError)?;
        bytes.try_into().map(Self).map_err(|_| SecretIdError)
    }
}

/// The text is no id of a secret.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the id of a secret: 16 hex digits")]
pub struct SecretIdError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_id_is_unchanged_since_v1() {
        assert_eq!(SharedSecret::from_bytes([1; 32]).id().to_string(), "ce2607155ade19af");
    }

    #[test]
    fn secrets_print_as_dots() {
        assert_eq!(format!("{:?}", SharedSecret::from_bytes([1; 32])), "SharedSecret(..)");
    }

    #[test]
    fn secrets_differ_by_their_last_bit() {
        let mut other = [1; 32];
        other[31] = 0;
        assert_ne!(SharedSecret::from_bytes([1; 32]), SharedSecret::from_bytes(other));
        assert_eq!(SharedSecret::from_bytes([1; 32]), SharedSecret::from_bytes([1; 32]));
    }
}
