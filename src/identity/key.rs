//! Ed25519 key pairs and the X25519 keys derived from them.

use std::{fmt, str::FromStr};

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use super::text::{self, KeyError};

/// Bytes of an Ed25519 signature (RFC 8032).
pub(crate) const SIGNATURE_LEN: usize = 64;

/// The public key of a peer: its name everywhere.
///
/// Printed as z-base-32 (52 characters); parsed from that or from 64 hex digits. Always a valid point of full order.
///
/// ```
/// use narthex::PublicKey;
///
/// let key: PublicKey = "x1iunbk8pqzxgsobi97zje9hxr7smb4dn6rcn4b61q6we39pknxo".parse()?;
/// assert_eq!(key.to_hex().parse(), Ok(key));
/// # Ok::<_, narthex::identity::KeyError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes the 32 bytes of RFC 8032.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`] for bytes that are no point of the curve, or a point of small order: anybody could sign
    /// for such a key.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAKey)?;
        if key.is_weak() {
            return Err(KeyError::NotAKey);
        }
        Ok(Self(*bytes))
    }

    /// The 32 bytes of RFC 8032.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        text::to_hex(&self.0)
    }

    /// The X25519 public key of the same peer, by the birational map of RFC 7748, section 4.1.
    pub(crate) fn x25519(&self) -> [u8; 32] {
        self.verifying_key().to_montgomery().to_bytes()
    }

    /// True if `signature` was made over `message` by the holder of this key (strict RFC 8032 verification).
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        self.verifying_key().verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }

    fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey::from_bytes(&self.0).expect("checked in from_bytes")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::to_z_base_32(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = text::parse(text)?;
        Self::from_bytes(&bytes)
    }
}

/// Text in human-readable formats, 32 bytes in others.
impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            Self::from_bytes(&<[u8; 32]>::deserialize(deserializer)?).map_err(de::Error::custom)
        }
    }
}

/// An Ed25519 key pair: the identity of a peer. Wiped on drop.
///
/// ```
/// use narthex::{KeyPair, identity::load_or_create_key};
///
/// let directory = tempfile::tempdir()?;
/// let file = directory.path().join("narthex.key");
/// let key: KeyPair = load_or_create_key(&file)?;
/// assert_eq!(load_or_create_key(&file)?.public(), key.public());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct KeyPair(SigningKey);

impl KeyPair {
    /// A fresh key from the operating system's randomness.
    ///
    /// # Panics
    /// If the operating system has no randomness to give: any other key could be guessed.
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).expect("the operating system gives randomness");
        Self::from_seed(&seed)
    }

    /// The key pair of a 32-byte seed (RFC 8032's private key).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, for a key file and for libp2p. Handle with care.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The X25519 private key that belongs to [`PublicKey::x25519`].
    pub(crate) fn x25519_private(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_scalar_bytes())
    }

    /// Signs `message` (RFC 8032).
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        use ed25519_dalek::Signer;
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_of_a_key_are_unchanged_since_v1() {
        let key = KeyPair::from_seed(&[7; 32]).public();
        assert_eq!(key.to_hex(), "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c");
        assert_eq!(key.to_string(), "7jfgaa9nutjyixzikb7tgmsf9gkwq7iqz498zr1nd5ig1fng4esy");
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(key.to_hex().to_uppercase().parse(), Ok(key));
    }

    #[test]
    fn x25519_private_and_public_keys_belong_together() {
        let pair = KeyPair::from_seed(&[9; 32]);
        let private = x25519_dalek::StaticSecret::from(*pair.x25519_private());
        assert_eq!(x25519_dalek::PublicKey::from(&private).to_bytes(), pair.public().x25519());
    }

    #[test]
    fn texts_that_are_no_key_give_the_reason() {
        assert_eq!("abc".parse::<PublicKey>(), Err(KeyError::Length { len: 3 }));
        let l_is_no_symbol = "l".repeat(52);
        assert_eq!(l_is_no_symbol.parse::<PublicKey>(), Err(KeyError::Character { form: "z-base-32", position: 0 }));
        let hex = format!("{}g", "0".repeat(63));
        assert_eq!(hex.parse::<PublicKey>(), Err(KeyError::Character { form: "hex", position: 63 }));
    }

    #[test]
    fn the_identity_point_is_refused_as_a_key() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PublicKey::from_bytes(&identity), Err(KeyError::NotAKey));
    }

    #[test]
    fn a_signature_over_other_bytes_is_refused() {
        let pair = KeyPair::generate();
        let signature = pair.sign(b"here");
        assert!(pair.public().verify(b"here", &signature));
        assert!(!pair.public().verify(b"there", &signature));
    }

    #[test]
    fn debug_of_a_key_pair_shows_only_the_public_half() {
        let pair = KeyPair::from_seed(&[3; 32]);
        let printed = format!("{pair:?}");
        assert!(printed.contains(&pair.public().to_string()));
        assert!(!printed.contains(&text::to_hex(&[3; 32])) && !printed.contains(&text::to_z_base_32(&[3; 32])));
    }
}
