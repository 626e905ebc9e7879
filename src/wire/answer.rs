//! The responder's answer to the first handshake message: the second message, or a refusal with its reason.
//!
//! The Noise handshake does not cover a refusal. The link does: links are encrypted and bound to the responder's key.

use super::HandshakeError;

/// First byte of an answer with a Noise message.
const NOISE: u8 = 0;
/// First byte of an answer with a refusal.
const REFUSED: u8 = 1;

/// The answer in its frame: `0 | Noise message` or `1 | code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeAnswer<'a> {
    /// The Noise message that ends the handshake.
    Noise(&'a [u8]),
    /// The responder refuses the session.
    Refused(HandshakeRefusal),
}

impl<'a> HandshakeAnswer<'a> {
    /// The answer as bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Noise(message) => [&[NOISE], *message].concat(),
            Self::Refused(refusal) => vec![REFUSED, *refusal as u8],
        }
    }

    /// Reads an answer that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`HandshakeError::Answer`] for bytes that are none.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HandshakeError> {
        match bytes {
            [NOISE, message @ ..] if !message.is_empty() => Ok(Self::Noise(message)),
            [REFUSED, code] => Ok(Self::Refused(HandshakeRefusal::from_code(*code))),
            _ => Err(HandshakeError::Answer),
        }
    }
}

/// Why a responder refused the handshake. The discriminants are the codes on the wire; details stay in the responder's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeRefusal {
    /// The responder has no secret with the initiator's id: the secrets of the two sides differ.
    #[error("unknown secret: the other side does not hold this shared secret")]
    UnknownSecret = 1,
    /// The Noise key is not that of the peer which the link authenticated.
    #[error("identity mismatch: the handshake was made with another key than the link")]
    IdentityMismatch = 2,
    /// There are too many handshakes at once, or from this peer. The client tries again later.
    #[error("busy: try again later")]
    Busy = 3,
    /// The first message is malformed, or meant for another key or protocol.
    #[error("malformed: the other side could not read the first message")]
    Malformed = 4,
    /// The responder cannot answer now. Unknown codes of later versions are parsed as this one: trying again with backoff
    /// is right for any unknown reason.
    #[error("unavailable: try again later")]
    Unavailable = 5,
    /// The responder knows the secret, and lets this key not use it: not now, not any more, or never.
    #[error(
        "not admitted: this key may not use the secret or ticket; it has expired, is used up, or the key is blocked"
    )]
    NotAdmitted = 6,
}

impl HandshakeRefusal {
    fn from_code(code: u8) -> Self {
        let known = [Self::UnknownSecret, Self::IdentityMismatch, Self::Busy, Self::Malformed, Self::NotAdmitted];
        known.into_iter().find(|refusal| *refusal as u8 == code).unwrap_or(Self::Unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::{HandshakeAnswer as Answer, HandshakeRefusal as Refusal, *};

    #[test]
    fn answer_bytes_are_unchanged_since_v1() {
        for (answer, bytes) in [
            (Answer::Noise(&[7, 8]), &[0, 7, 8][..]),
            (Answer::Refused(Refusal::UnknownSecret), &[1, 1]),
            (Answer::Refused(Refusal::IdentityMismatch), &[1, 2]),
            (Answer::Refused(Refusal::Busy), &[1, 3]),
            (Answer::Refused(Refusal::Malformed), &[1, 4]),
            (Answer::Refused(Refusal::Unavailable), &[1, 5]),
            (Answer::Refused(Refusal::NotAdmitted), &[1, 6]),
        ] {
            assert_eq!(answer.encode(), bytes);
            assert_eq!(Answer::parse(bytes).expect("parses"), answer);
        }
    }

    #[test]
    fn a_refusal_of_a_later_version_means_try_again_later() {
        for code in [0, 7, 255] {
            assert_eq!(Answer::parse(&[1, code]).expect("parses"), Answer::Refused(Refusal::Unavailable));
        }
    }

    #[test]
    fn bytes_that_are_no_answer_are_refused() {
        for bytes in [&[][..], &[0], &[1], &[1, 1, 1], &[2, 1]] {
            assert!(matches!(Answer::parse(bytes), Err(HandshakeError::Answer)), "{bytes:?}");
        }
    }
}
