//! How long a scrape waits for a peer whose link was lost a moment ago.
//!
//! Most lost links are back within a second, as the peer redials at once. So a loss is worth one wait: the first scrape
//! after the loss begins the wait, scrapes that come meanwhile share it, and once it has passed in vain every further
//! scrape fails at once, until the link is back.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{self, Instant};

use crate::{identity::PublicKey, network::Links};

/// How long after a loss, or after the scraper's start, a peer may be about to come back.
const WINDOW: Duration = Duration::from_secs(10);
/// Longest wait for the peer.
const WAIT: Duration = Duration::from_secs(1);

/// When scrapes last began to wait for each peer.
pub(super) struct ReconnectGrace {
    started_at: Instant,
    began: Mutex<HashMap<PublicKey, Instant>>,
}

impl ReconnectGrace {
    pub(super) fn new() -> Self {
        Self { started_at: Instant::now(), began: Mutex::default() }
    }

    /// Waits for a link to the peer, if its last one was lost a moment ago. Returns whether there is a link.
    pub(super) async fn await_link(&self, links: &Links, peer: &PublicKey, deadline: Instant) -> bool {
        if links.path(peer).is_some() {
            return true;
        }
        let until = match links.lost_for(peer) {
            Some(lost_for) => self.wait_until(*peer, lost_for),
            None => (self.started_at.elapsed() < WINDOW).then(|| Instant::now() + WAIT),
        };
        match until {
            Some(until) => time::timeout_at(deadline.min(until), links.up(peer)).await.is_ok(),
            None => false,
        }
    }

    /// The end of a scrape's wait for a peer that lost its link `lost_for` ago; this may have passed. None if the
    /// loss is too old.
    fn wait_until(&self, peer: PublicKey, lost_for: Duration) -> Option<Instant> {
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
        self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
        let (grace, lost_at) = (ReconnectGrace::new(), Instant::now());
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
        let grace = ReconnectGrace::new();
        grace.wait_until(peer(1), TICK);
        advance(3 * WAIT).await;
        // It was back, and was lost again.
        assert_eq!(grace.wait_until(peer(1), TICK), Some(Instant::now() + WAIT));
        grace.forget_old();
        advance(TICK).await;
        assert_eq!(grace.wait_until(peer(1), 2 * TICK), Some(Instant::now() + WAIT - TICK));
    }
}
