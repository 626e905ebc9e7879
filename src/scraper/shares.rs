//! Who may have one of so many [places](super::places), or waits for one.

use std::{
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::Notify,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::places::{Asked, Full, Occupant, Places};

/// The places, and who waits for one.
pub(super) struct Shares<G, M> {
    most_of_group: usize,
    state: Mutex<State<G, M>>,
    left: Notify,
}

struct State<G, M> {
    next: u64,
    places: Places<G, M>,
}

/// A place, until this is dropped.
pub(super) struct Share<G: Clone + Eq + Hash, M: Clone + Eq + Hash> {
    shares: Arc<Shares<G, M>>,
    id: u64,
    evicted: CancellationToken,
    displaced: Option<Full>,
}

impl<G: Clone + Eq + Hash, M: Clone + Eq + Hash> Shares<G, M> {
    /// At most `most` places in all, and of a group `most_of_group`.
    pub(super) fn new(most: usize, most_of_group: usize) -> Arc<Self> {
        let state = State { next: 0, places: Places::new(most) };
        Arc::new(Self { most_of_group, state: Mutex::new(state), left: Notify::new() })
    }

    /// A place; at a bound, that of somebody who has clearly more.
    pub(super) fn ask(self: &Arc<Self>, group: G, member: M) -> Result<Share<G, M>, Full> {
        let evicted = CancellationToken::new();
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        let displaced =
            match state.places.ask(id, Occupant { group, member, evicted: evicted.clone() }, self.most_of_group) {
                Asked::Placed => None,
                Asked::Displaced(full) => Some(full),
                Asked::Refused(full) => return Err(full),
            };
        Ok(Share { shares: Arc::clone(self), id, evicted, displaced })
    }

    /// As [`ask`](Self::ask), once there is a place. None if there was none in time.
    pub(super) async fn wait(self: &Arc<Self>, group: G, member: M, deadline: Instant) -> Option<Share<G, M>> {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            if let Ok(share) = self.ask(group.clone(), member.clone()) {
                return Some(share);
            }
            time::timeout_at(deadline, left).await.ok()?;
        }
    }

    fn state(&self) -> MutexGuard<'_, State<G, M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<G: Clone + Eq + Hash, M: Clone + Eq + Hash> Share<G, M> {
    /// Cancelled when the place goes to somebody who has fewer.
    pub(super) fn evicted(&self) -> &CancellationToken {
        &self.evicted
    }

    /// The bound at which somebody else lost a place to this one.
    pub(super) fn displaced(&self) -> Option<Full> {
        self.displaced
    }
}

impl<G: Clone + Eq + Hash, M: Clone + Eq + Hash> Drop for Share<G, M> {
    fn drop(&mut self) {
        self.shares.state().places.leave(self.id);
        self.shares.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_place_waits_for_one_that_is_left() {
        let shares = Shares::<u8, u8>::new(usize::MAX, 2);
        let soon = Instant::now() + Duration::from_secs(1);
        let [first, second] = [0, 1].map(|member| shares.ask(7, member).expect("a place"));
        assert!(shares.wait(7, 2, soon).await.is_none(), "everybody has one");
        assert!(shares.ask(8, 0).is_ok(), "another group has places of its own");
        let waiting = tokio::spawn({
            let shares = Arc::clone(&shares);
            async move { shares.wait(7, 2, Instant::now() + Duration::from_secs(1)).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waiting.await.expect("ends"));
        assert!(!second.evicted().is_cancelled());
    }

    #[test]
    fn who_has_clearly_more_gives_a_place_up() {
        let shares = Shares::<u8, u8>::new(usize::MAX, 3);
        let held = [0, 0, 0].map(|member| shares.ask(7, member).expect("a place"));
        assert_eq!(shares.ask(7, 1).expect("displaces").displaced(), Some(Full::Group));
        assert!(held[0].evicted().is_cancelled() && !held[1].evicted().is_cancelled());
    }
}
