//! Sessions: both ends of a finished handshake. A session seals messages into frames and opens frames again.
//!
//! A frame contains one Noise transport message, whose plaintext is `flag: u8 | piece`. A Noise message has at most
//! 65 535 bytes, so a longer message spans several frames: all but the last carry [`PIECE_LEN`] bytes and the flag 0,
//! the last carries the rest and the flag 1. Each direction counts its own nonces, so a frame that is changed,
//! repeated, left out or out of order is refused. The session ends then.

use snow::{HandshakeState, TransportState};

use super::{
    NoiseError,
    codec::MAX_MESSAGE_LEN,
    frame::{self, MAX_FRAME_LEN},
};

/// Flag of a frame that is not the last of its message.
const MORE: u8 = 0;
/// Flag of the last frame of a message.
const LAST: u8 = 1;
/// Bytes of the flag and the authentication tag.
const OVERHEAD_LEN: usize = 1 + 16;
/// Most bytes of a message in one frame.
const PIECE_LEN: usize = MAX_FRAME_LEN - OVERHEAD_LEN;

/// One end of an authenticated, encrypted exchange of messages.
#[derive(Debug)]
pub struct Session {
    state: TransportState,
    pieces: Pieces,
    ended: bool,
}

impl Session {
    pub(super) fn new(handshake: HandshakeState) -> Result<Self, snow::Error> {
        Ok(Self { state: handshake.into_transport_mode()?, pieces: Pieces::default(), ended: false })
    }

    /// Seals a message into whole frames.
    ///
    /// # Errors
    /// [`SessionError::TooLong`] for more than [`MAX_MESSAGE_LEN`] bytes; the session stays usable.
    pub fn seal(&mut self, message: &[u8]) -> Result<Vec<u8>, SessionError> {
        if message.len() > MAX_MESSAGE_LEN {
            return Err(SessionError::TooLong { len: message.len() });
        }
        let mut frames = Vec::new();
        let mut ciphertext = vec![0; MAX_FRAME_LEN.min(message.len() + OVERHEAD_LEN)];
        let mut rest = message;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(PIECE_LEN));
            let flag = if after.is_empty() { LAST } else { MORE };
            let plaintext = [&[flag], piece].concat();
            let len = self.state.write_message(&plaintext, &mut ciphertext).map_err(unsealable)?;
            frame::append(&ciphertext[..len], &mut frames).expect("a Noise message is never empty and fits a frame");
            if after.is_empty() {
                return Ok(frames);
            }
            rest = after;
        }
    }

    /// Opens the content of one frame. Returns the message with its last frame.
    ///
    /// # Errors
    /// [`SessionError`] for anything but the other end's next valid frame. The session ends with the first error.
    pub fn open(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>, SessionError> {
        if self.ended {
            return Err(SessionError::Ended);
        }
        let opened = self.open_next(frame);
        if opened.is_err() {
            self.ended = true;
            self.pieces = Pieces::default();
        }
        opened
    }

    /// True between the first and the last frame of a message: the stream must not end here.
    pub fn is_inside_message(&self) -> bool {
        self.received() > 0
    }

    /// Bytes of the message that is not whole yet.
    pub(super) fn received(&self) -> usize {
        self.pieces.0.len()
    }

    fn open_next(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>, SessionError> {
        let mut plaintext = vec![0; frame.len().min(MAX_FRAME_LEN)];
        let len = self
            .state
            .read_message(frame, &mut plaintext)
            .map_err(|source| SessionError::Unreadable(NoiseError(source)))?;
        self.pieces.push(&plaintext[..len])
    }
}

/// The pieces of an incomplete message.
#[derive(Debug, Default)]
struct Pieces(Vec<u8>);

impl Pieces {
    /// Adds the plaintext of a frame, after all checks.
    fn push(&mut self, plaintext: &[u8]) -> Result<Option<Vec<u8>>, SessionError> {
        let (last, piece) = match plaintext {
            [LAST, piece @ ..] => (true, piece),
            // A short piece in the middle would let a peer keep us busy with almost empty frames.
            [MORE, piece @ ..] if piece.len() == PIECE_LEN => (false, piece),
            _ => return Err(SessionError::Malformed),
        };
        let len = self.0.len() + piece.len();
        if len > MAX_MESSAGE_LEN {
            return Err(SessionError::TooLong { len });
        }
        self.0.extend_from_slice(piece);
        Ok(last.then(|| std::mem::take(&mut self.0)))
    }
}

/// Why a message could not be sealed, or a frame could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A message longer than the limit.
    #[error("message of at least {len} bytes: limit is {MAX_MESSAGE_LEN}")]
    TooLong {
        /// The message's length so far.
        len: usize,
    },
    /// Not the other end's next frame. For the first frame of an initiator: the initiator lacks the secret.
    #[error("frame is not the next one of this session")]
    Unreadable(#[source] NoiseError),
    /// An authentic frame without a valid flag, or with too short a piece.
    #[error("frame breaks the rules of a session")]
    Malformed,
    /// An earlier error ended the session.
    #[error("session has ended with an earlier error")]
    Ended,
    /// No further message can be sealed.
    #[error("frame could not be sealed")]
    Unsealable(#[source] NoiseError),
}

fn unsealable(source: snow::Error) -> SessionError {
    SessionError::Unsealable(NoiseError(source))
}

#[cfg(all(any(fuzzing, test), feature = "cli"))]
mod unruly;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::noise::tests::sessions;

    /// The contents of the frames in `bytes`.
    fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut contents = vec![];
        while let Some(split) = frame::split(bytes, MAX_FRAME_LEN).expect("well formed") {
            contents.push(split.content.to_vec());
            bytes = split.rest;
        }
        assert!(bytes.is_empty(), "no half frame is left");
        contents
    }

    fn open_all(session: &mut Session, bytes: &[u8]) -> Vec<Vec<u8>> {
        frames(bytes).iter().filter_map(|frame| session.open(frame).expect("opens")).collect()
    }

    #[test]
    fn messages_of_every_length_class_come_back_as_they_went() {
        let (mut ours, mut theirs) = sessions();
        let classes = [(0, 1), (1, 1), (PIECE_LEN, 1), (PIECE_LEN + 1, 2), (2 * PIECE_LEN, 2), (MAX_MESSAGE_LEN, 17)];
        for (len, count) in classes {
            let message: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let sealed = ours.seal(&message).expect("seals");
            assert_eq!(frames(&sealed).len(), count, "{len} bytes");
            assert!(open_all(&mut theirs, &sealed) == [message], "{len} bytes");
        }
    }

    #[test]
    fn a_message_too_long_is_not_sealed_and_the_session_goes_on() {
        let (mut ours, mut theirs) = sessions();
        let refused = ours.seal(&vec![0; MAX_MESSAGE_LEN + 1]);
        assert!(matches!(refused, Err(SessionError::TooLong { len }) if len == MAX_MESSAGE_LEN + 1));
        let sealed = ours.seal(b"short").expect("seals");
        assert_eq!(open_all(&mut theirs, &sealed), [b"short"]);
    }

    #[test]
    fn a_session_knows_that_it_is_inside_a_message() {
        let (mut ours, mut theirs) = sessions();
        let sealed = frames(&ours.seal(&vec![1; PIECE_LEN + 1]).expect("seals"));
        assert!(!theirs.is_inside_message());
        assert_eq!(theirs.open(&sealed[0]).expect("opens"), None);
        assert!(theirs.is_inside_message());
        assert!(theirs.open(&sealed[1]).expect("opens").is_some());
        assert!(!theirs.is_inside_message());
    }

    #[test]
    fn frames_repeated_left_out_swapped_or_reflected_are_refused() {
        let three = |session: &mut Session| -> Vec<Vec<u8>> {
            (0..3).flat_map(|n| frames(&session.seal(&[n]).expect("seals"))).collect()
        };
        for order in [&[0, 0][..], &[1], &[0, 2]] {
            let (mut ours, mut theirs) = sessions();
            let sealed = three(&mut ours);
            let (last, before) = order.split_last().expect("not empty");
            for n in before {
                theirs.open(&sealed[*n]).expect("opens");
            }
            assert!(matches!(theirs.open(&sealed[*last]), Err(SessionError::Unreadable(_))), "{order:?}");
        }
        let (mut ours, _) = sessions();
        let sealed = three(&mut ours);
        assert!(matches!(ours.open(&sealed[0]), Err(SessionError::Unreadable(_))));
    }

    #[test]
    fn an_error_ends_the_session() {
        let (mut ours, mut theirs) = sessions();
        let sealed = frames(&ours.seal(&vec![1; PIECE_LEN + 1]).expect("seals"));
        theirs.open(&sealed[0]).expect("opens");
        assert!(matches!(theirs.open(b"noise"), Err(SessionError::Unreadable(_))));
        assert!(matches!(theirs.open(&sealed[1]), Err(SessionError::Ended)));
        assert!(!theirs.is_inside_message(), "the pieces are dropped");
    }

    #[test]
    fn frames_of_impossible_lengths_are_refused() {
        for len in [0, 1, 15, 16, MAX_FRAME_LEN, MAX_FRAME_LEN + 1, 1_000_000] {
            let (_, mut theirs) = sessions();
            assert!(matches!(theirs.open(&vec![0; len]), Err(SessionError::Unreadable(_))), "{len} bytes");
        }
    }

    #[test]
    fn pieces_past_the_limit_are_refused_before_they_are_kept() {
        let more = [&[MORE][..], &[0; PIECE_LEN]].concat();
        let mut pieces = Pieces::default();
        let fit = MAX_MESSAGE_LEN / PIECE_LEN;
        for _ in 0..fit {
            assert!(matches!(pieces.push(&more), Ok(None)));
        }
        assert!(matches!(pieces.push(&more), Err(SessionError::TooLong { .. })));
        assert_eq!(pieces.0.len(), fit * PIECE_LEN);
    }

    #[test]
    fn pieces_without_a_flag_or_short_in_the_middle_are_refused() {
        for plaintext in [&[][..], &[2], &[255, 1, 2], &[MORE], &[MORE, 1], &vec![MORE; PIECE_LEN]] {
            assert!(matches!(Pieces::default().push(plaintext), Err(SessionError::Malformed)));
        }
        assert_eq!(Pieces::default().push(&[LAST]).expect("empty message"), Some(vec![]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_flipped_bit_anywhere_in_a_frame_is_refused(
            message in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, bit in 0..8
        ) {
            let (mut ours, mut theirs) = sessions();
            let mut frame = frames(&ours.seal(&message).expect("seals")).remove(0);
            let at = at.index(frame.len());
            frame[at] ^= 1_u8 << bit;
            prop_assert!(theirs.open(&frame).is_err());
        }
    }
}
