//! How long a scrape waits for a peer whose link was lost a moment ago.
//!
//! Most links that are lost are back within a second: the peer redials at once. So a loss is worth one wait. The first
//! scrape after it begins the wait, those that come meanwhile share it, and once it has passed in vain every further
//! scrape fails at once, until the link was there again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::identity::PublicKey;

/// When scrapes last began to wait for a peer.
#[derive(Default)]
pub(super) struct ReconnectGrace(Mutex<HashMap<PublicKey, Instant>>);

impl ReconnectGrace {
    /// Until when a scrape of a peer that lost its link so long ago waits for it; this may have passed. None if the
    /// loss is too old.
    pub(super) fn wait_until(&self, peer: PublicKey, lost_for: Duration) -> Option<Instant> {
        if lost_for >= WINDOW {
            return None;
        }
        let mut began = self.began();
        let began = began.entry(peer).or_insert_with(Instant::now);
        if began.elapsed() > lost_for {
            *began = Instant::now(); // the last wait was for an earlier loss
        }
        Some(*began + WAIT)
    }

    /// Forgets waits that were for losses too old to be waited for.
    pub(super) fn forget_old(&self) {
        self.began().retain(|_, began| began.elapsed() < WINDOW);
    }

    fn began(&self) -> MutexGuard<'_, HashMap<PublicKey, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For so long after a loss, or after the scraper's start, a peer may be about to come back.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Longest wait for it.
pub(super) const WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::identity::KeyPair;

    const TICK: Duration = Duration::from_millis(100);

    fn peer(seed: u8) -> PublicKey {
        KeyPair::from_seed(&[seed; 32]).public()
    }

    #[tokio::test(start_paused = true)]
    async fn scrapes_share_the_one_wait_that_a_loss_is_worth() {
        let (grace, lost_at) = (ReconnectGrace::default(), Instant::now());
        let wait = || grace.wait_until(peer(1), lost_at.elapsed());
        advance(3 * WAIT).await;
        let until = wait().expect("the loss is young");
        assert_eq!(until, Instant::now() + WAIT);
        for _ in 0..20 {
            advance(TICK).await;
            assert_eq!(wait(), Some(until), "in vain once it has passed");
        }
        assert_eq!(grace.wait_until(peer(2), TICK), Some(Instant::now() + WAIT), "another peer's loss is its own");
        advance(WINDOW).await;
        assert_eq!(wait(), None);
        grace.forget_old();
        assert!(grace.began().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_loss_is_worth_a_new_wait() {
        let grace = ReconnectGrace::default();
        grace.wait_until(peer(1), TICK);
        advance(3 * WAIT).await;
        // It was back, and was lost again.
        assert_eq!(grace.wait_until(peer(1), TICK), Some(Instant::now() + WAIT));
        grace.forget_old();
        advance(TICK).await;
        assert_eq!(grace.wait_until(peer(1), 2 * TICK), Some(Instant::now() + WAIT - TICK));
    }
}
