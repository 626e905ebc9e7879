//! A bound on the log lines that peers can cause: a few of each peer, and not many of all.
//!
//! The first line of a peer in a minute has a budget apart from the further ones: a few peers that cause many lines silence
//! themselves and not the others.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::identity::PublicKey;

/// Lines a minute that one peer can cause.
const PER_PEER: NonZeroU32 = NonZeroU32::new(30).expect("thirty is not zero");

/// The rate of log lines of one kind.
#[derive(Debug)]
pub(crate) struct LogRate {
    by_peer: DefaultKeyedRateLimiter<PublicKey>,
    /// One a minute.
    first_by_peer: DefaultKeyedRateLimiter<PublicKey>,
    firsts: DefaultDirectRateLimiter,
    further: DefaultDirectRateLimiter,
    left_out: AtomicU64,
}

impl LogRate {
    /// The first lines of at most `per_minute` peers, and as many further lines of all.
    pub(crate) fn new(per_minute: NonZeroU32) -> Self {
        let all = Quota::per_minute(per_minute);
        Self {
            by_peer: RateLimiter::keyed(Quota::per_minute(PER_PEER)),
            first_by_peer: RateLimiter::keyed(Quota::per_minute(NonZeroU32::MIN)),
            firsts: RateLimiter::direct(all),
            further: RateLimiter::direct(all),
            left_out: AtomicU64::new(0),
        }
    }

    /// Asks to write a line that the peer caused. None if the line is left out; else the number of lines left out since the
    /// last one, for the field `left_out`, if there are any.
    pub(crate) fn line(&self, peer: &PublicKey) -> Option<Option<u64>> {
        let is_first = || self.first_by_peer.check_key(peer).is_ok() && self.firsts.check().is_ok();
        if self.by_peer.check_key(peer).is_err() || !(is_first() || self.further.check().is_ok()) {
            self.left_out.fetch_add(1, Relaxed);
            return None;
        }
        let left_out = self.left_out.swap(0, Relaxed);
        Some((left_out > 0).then_some(left_out))
    }

    /// Drops the rates of peers that have been silent for a while.
    pub(crate) fn forget_old(&self) {
        self.by_peer.retain_recent();
        self.first_by_peer.retain_recent();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    fn lines(rate: &LogRate, peer: &PublicKey, count: usize) -> usize {
        (0..count).filter(|_| rate.line(peer).is_some()).count()
    }

    #[test]
    fn a_peer_writes_so_many_lines_and_all_together_not_many_more() {
        let rate = LogRate::new(NonZeroU32::new(70).expect("not zero"));
        let peers = [(); 4].map(|()| KeyPair::generate().public());
        assert_eq!(peers.map(|peer| lines(&rate, &peer, 100)), [30, 30, 13, 1]);
        // The first line of each peer has told of those before.
        assert_eq!(rate.left_out.load(Relaxed), 99);
    }

    /// Before: whoever used the lines of all up silenced the others.
    #[test]
    fn peers_that_cause_many_lines_leave_the_others_their_first() {
        let rate = LogRate::new(NonZeroU32::new(30).expect("not zero"));
        let noisy = [(); 10].map(|()| KeyPair::generate().public());
        assert_eq!(noisy.iter().map(|peer| lines(&rate, peer, 100)).sum::<usize>(), 10 + 30);
        assert_eq!(lines(&rate, &KeyPair::generate().public(), 100), 1);
    }
}
