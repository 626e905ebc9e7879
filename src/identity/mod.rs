//! Who a peer is: Ed25519 keys, the shared secret, their text forms and their files.
//!
//! A peer *is* its Ed25519 key. The Noise static key (X25519) and the libp2p peer id are both derived from that key, so
//! a public key is enough to dial a peer and to verify who answered. This module opens no socket and reads no clock.

mod dial_address;
mod file;
mod key;
mod peer_addr;
mod secret;
mod text;

pub use dial_address::{DialAddress, DialAddressError, WebSocketUrl};
#[cfg(feature = "cli")]
pub(crate) use file::read_private;
pub use file::{KeyFileError, create_key, create_secret, load_key, load_or_create_key, load_secret};
pub(crate) use key::SIGNATURE_LEN;
pub use key::{KeyPair, PublicKey};
pub use peer_addr::{HostPort, HostPortError, PeerAddr, PeerAddrError};
pub use secret::SharedSecret;
#[doc(hidden)]
pub use secret::{SecretId, SecretIdError};
pub use text::KeyError;
#[cfg(feature = "client")]
pub(crate) use text::{decode_text, encode_text};

pub use crate::private_file::{ExposedFile, Exposure};
