//! The register handshake: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` (Noise rev. 34, sections 7.5 and 9).
//!
//! The client is the initiator and knows the scraper's static key beforehand. The first message therefore carries the
//! client's key and the id of its secret encrypted. The secret itself is mixed in at the end of the second message, so
//! the responder can read the first message before it chooses among its secrets. Static keys are the X25519 forms of the
//! peers' Ed25519 keys. The prologue binds the protocol and both Ed25519 keys: X25519 would bind them only up to a sign.
//!
//! A successful [`Initiator::finish`] proves to the initiator that the responder has the secret. The responder has that
//! proof of the initiator once [`Session::open`] has opened a first frame, and must grant nothing before: a replayed
//! first message is then worthless.

use snow::{Builder, HandshakeState, params::NoiseParams};

use super::{HandshakeRefusal, Session};
use crate::identity::{KeyPair, PublicKey, SecretId, SharedSecret};

/// The client knows the scraper's key beforehand (`IK`); the shared secret is mixed in last (`psk2`).
const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// The `psk2` of the pattern.
const PSK_LOCATION: u8 = 2;
/// Length of the id that names one of a scraper's secrets.
const SECRET_ID_LEN: usize = 8;
/// Length of the tag of a ChaCha20-Poly1305 ciphertext (RFC 8439).
const TAG_LEN: usize = 16;

/// Bytes of the first message: ephemeral key, encrypted static key, encrypted secret id.
pub const FIRST_MESSAGE_LEN: usize = 32 + (32 + TAG_LEN) + (SECRET_ID_LEN + TAG_LEN);

/// Bytes of the second message: ephemeral key and an empty encrypted payload.
pub const RESPONSE_LEN: usize = 32 + TAG_LEN;

/// The client's half of an unfinished handshake.
#[derive(Debug)]
pub struct Initiator {
    state: HandshakeState,
    remote: PublicKey,
}

impl Initiator {
    /// Begins a handshake with `remote` that will prove `secret`. The bytes are the first message.
    ///
    /// # Errors
    /// [`HandshakeError::Noise`] if the message cannot be computed, as without randomness.
    pub fn start(
        local: &KeyPair,
        remote: &PublicKey,
        secret: &SharedSecret,
        protocol: &str,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let private = local.x25519_private();
        let prologue = prologue(protocol, &local.public(), remote);
        Self::start_from(builder(&private, &prologue)?, remote, secret)
    }

    fn start_from(
        builder: Builder<'_>,
        remote: &PublicKey,
        secret: &SharedSecret,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let remote_static = remote.x25519();
        let mut state = builder
            .remote_public_key(&remote_static)
            .and_then(|builder| builder.psk(PSK_LOCATION, secret.expose()))
            .and_then(Builder::build_initiator)
            .map_err(noise)?;
        let mut first = vec![0; FIRST_MESSAGE_LEN];
        let len = state.write_message(&secret.id().0, &mut first).map_err(noise)?;
        first.truncate(len);
        Ok((Self { state, remote: *remote }, first))
    }

    /// Reads the responder's message, which proves the responder's key and secret.
    ///
    /// # Errors
    /// [`HandshakeError::NotProved`] if the proof fails.
    pub fn finish(mut self, response: &[u8]) -> Result<Session, HandshakeError> {
        let no_payload = &mut [];
        self.state
            .read_message(response, no_payload)
            .map_err(|source| HandshakeError::NotProved { peer: self.remote, source: NoiseError(source) })?;
        Session::new(self.state).map_err(noise)
    }
}

/// The scraper's half of an unfinished handshake: the first message was read, nothing is proved yet.
#[derive(Debug)]
pub struct Responder {
    state: HandshakeState,
    secret_id: SecretId,
}

impl Responder {
    /// Reads the first message of `remote`, the peer that the link authenticated.
    ///
    /// # Errors
    /// [`HandshakeError::Unreadable`] if this is no first message for this key and protocol,
    /// [`HandshakeError::IdentityMismatch`] if the message was made with another key than that of `remote`.
    pub fn read(local: &KeyPair, remote: &PublicKey, protocol: &str, first: &[u8]) -> Result<Self, HandshakeError> {
        let private = local.x25519_private();
        let prologue = prologue(protocol, remote, &local.public());
        Self::read_from(builder(&private, &prologue)?, remote, first)
    }

    fn read_from(builder: Builder<'_>, remote: &PublicKey, first: &[u8]) -> Result<Self, HandshakeError> {
        let unreadable = |source| HandshakeError::Unreadable { peer: *remote, source: NoiseError(source) };
        if first.len() != FIRST_MESSAGE_LEN {
            return Err(unreadable(snow::Error::Input));
        }
        let mut state = builder.build_responder().map_err(noise)?;
        let mut id = [0; SECRET_ID_LEN];
        state.read_message(first, &mut id).map_err(unreadable)?;
        if state.get_remote_static() != Some(&remote.x25519()[..]) {
            return Err(HandshakeError::IdentityMismatch { peer: *remote });
        }
        Ok(Self { state, secret_id: SecretId(id) })
    }

    /// The id of the secret that the initiator will prove.
    pub fn secret_id(&self) -> SecretId {
        self.secret_id
    }

    /// Proves `secret`. The bytes are the second message.
    ///
    /// # Errors
    /// [`HandshakeError::Noise`] if the message cannot be computed, as without randomness.
    pub fn respond(mut self, secret: &SharedSecret) -> Result<(Session, Vec<u8>), HandshakeError> {
        self.state.set_psk(PSK_LOCATION.into(), secret.expose()).map_err(noise)?;
        let mut response = vec![0; RESPONSE_LEN];
        let len = self.state.write_message(&[], &mut response).map_err(noise)?;
        response.truncate(len);
        Ok((Session::new(self.state).map_err(noise)?, response))
    }
}

/// Why a handshake gave no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The initiator's message is garbage, or was meant for another key or protocol.
    #[error("handshake of peer {peer} is malformed or not for this key and protocol")]
    Unreadable {
        /// The link's peer.
        peer: PublicKey,
        /// The error of the Noise implementation.
        source: NoiseError,
    },
    /// The initiator used another key than the one that the link authenticated.
    #[error("peer {peer} made the handshake with another key than the link")]
    IdentityMismatch {
        /// The link's peer.
        peer: PublicKey,
    },
    /// The responder lacks the private key or the shared secret.
    #[error("peer {peer} did not prove its key and the shared secret")]
    NotProved {
        /// The expected peer.
        peer: PublicKey,
        /// The error of the Noise implementation.
        source: NoiseError,
    },
    /// The responder sent something that is no [`HandshakeAnswer`](super::HandshakeAnswer).
    #[error("answer to the handshake is malformed")]
    Answer,
    /// Our own side failed, as without randomness.
    #[error("handshake could not be computed")]
    Noise(#[source] NoiseError),
}

impl HandshakeError {
    /// The refusal to answer the initiator with.
    pub fn refusal(&self) -> HandshakeRefusal {
        match self {
            Self::IdentityMismatch { .. } => HandshakeRefusal::IdentityMismatch,
            Self::Unreadable { .. } | Self::NotProved { .. } | Self::Answer => HandshakeRefusal::Malformed,
            Self::Noise(_) => HandshakeRefusal::Unavailable,
        }
    }
}

/// An error of the Noise implementation.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NoiseError(#[from] pub(super) snow::Error);

/// No two triples give the same bytes: the keys at the end have a fixed length.
fn prologue(protocol: &str, initiator: &PublicKey, responder: &PublicKey) -> Vec<u8> {
    [protocol.as_bytes(), initiator.as_bytes(), responder.as_bytes()].concat()
}

fn builder<'a>(private: &'a [u8; 32], prologue: &'a [u8]) -> Result<Builder<'a>, HandshakeError> {
    let params: NoiseParams = PATTERN.parse().map_err(noise)?;
    Builder::new(params).local_private_key(private).and_then(|builder| builder.prologue(prologue)).map_err(noise)
}

fn noise(source: snow::Error) -> HandshakeError {
    HandshakeError::Noise(NoiseError(source))
}

#[cfg(all(any(fuzzing, test), feature = "cli"))]
pub(crate) mod fixed;
#[cfg(test)]
pub(super) mod tests;
