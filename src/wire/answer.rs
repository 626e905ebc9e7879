//! What a responder says to the first handshake message: go on, or a refusal with its reason.
//!
//! A refusal is not covered by the Noise handshake. It need not be: it travels over a link that is encrypted and bound
//! to the responder's key already.

use super::HandshakeError;

/// The answer, as it stands in its frame: `0 | Noise message` or `1 | code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeAnswer<'a> {
    /// The Noise message that ends the handshake.
    Noise(&'a [u8]),
    /// There will be no session.
    Refused(HandshakeRefusal),
}

impl<'a> HandshakeAnswer<'a> {
    /// The answer as bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Noise(message) => [&[NOISE], *message].concat(),
            Self::Refused(refusal) => vec![REFUSED, refusal.code()],
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

/// Why a responder would not end the handshake. A short code: details stay in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HandshakeRefusal {
    /// It has no secret of the id that the initiator named: the secrets of the two sides differ.
    #[error("unknown secret: the other side does not hold this shared secret")]
    UnknownSecret,
    /// The Noise key is not that of the peer which the link authenticated.
    #[error("identity mismatch: the handshake was made with another key than the link")]
    IdentityMismatch,
    /// Too many handshakes at once, or from this peer; try again later.
    #[error("busy: try again later")]
    Busy,
    /// The first message was not one, or was meant for another key or protocol.
    #[error("malformed: the other side could not read the first message")]
    Malformed,
    /// It cannot answer now; try again later. Codes of later versions are read as this one too, since trying again with
    /// backoff is right for any reason that we do not know.
    #[error("unavailable: try again later")]
    Unavailable,
}

impl HandshakeRefusal {
    fn code(self) -> u8 {
        match self {
            Self::UnknownSecret => 1,
            Self::IdentityMismatch => 2,
            Self::Busy => 3,
            Self::Malformed => 4,
            Self::Unavailable => 5,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::UnknownSecret,
            2 => Self::IdentityMismatch,
            3 => Self::Busy,
            4 => Self::Malformed,
            _ => Self::Unavailable,
        }
    }
}

const NOISE: u8 = 0;
const REFUSED: u8 = 1;

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
        ] {
            assert_eq!(answer.encode(), bytes);
            assert_eq!(Answer::parse(bytes).expect("parses"), answer);
        }
    }

    #[test]
    fn a_refusal_of_a_later_version_means_try_again_later() {
        for code in [0, 6, 255] {
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
