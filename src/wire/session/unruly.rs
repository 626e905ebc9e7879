//! A session's end that breaks the rules, for the fuzz targets.

use super::{MAX_FRAME_LEN, OVERHEAD_LEN, Pieces, Session};
use crate::wire::frame;

impl Session {
    /// Most bytes of a frame's plaintext: flag and piece.
    pub(crate) const MAX_PLAINTEXT_LEN: usize = MAX_FRAME_LEN - OVERHEAD_LEN + 1;

    /// Seals any plaintext as one authentic frame.
    pub(crate) fn seal_plaintext(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut ciphertext = vec![0; MAX_FRAME_LEN];
        let len = self.state.write_message(plaintext, &mut ciphertext).expect("fits");
        let mut framed = vec![];
        frame::append(&ciphertext[..len], &mut framed).expect("fits");
        framed
    }

    /// Begins anew, with the next frame of `sender`: a handshake for each run would take most of the time.
    pub(crate) fn follow(&mut self, sender: &Self) {
        self.state.set_receiving_nonce(sender.state.sending_nonce());
        self.pieces = Pieces::default();
        self.ended = false;
    }
}
