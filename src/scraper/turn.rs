//! Who may have a register exchange: few at once, so that nobody keeps the others out.
//!
//! A peer is known if its link is kept: it holds an alias, or has proved a secret lately. Known peers and strangers have
//! places of their own. A peer waits until its first message is whole, and takes a place only then; strangers that are
//! silent, or many at one source, cost only each other a place. Of too many that wait, the oldest leaves, as a newcomer
//! that means well is done within two round trips.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time;
use tokio_util::sync::CancellationToken;

use super::metrics::ScraperMetrics;
use crate::{
    identity::PublicKey,
    network::{LinkId, Links, Source},
    telemetry::{Limit, Refusals},
};

/// Exchanges at once of known peers, and of strangers. Each costs a handshake, then waits for a disk flush that it shares
/// with the others.
const MAX_EXCHANGES: usize = 512;
/// Streams at once whose first message is not whole, of known peers, and of strangers.
const MAX_WAITING: usize = 512;
/// Waiting streams for each place that a source may have.
const WAITING_PER_PLACE: usize = 2;
/// Exchanges of one known peer at once: a client needs one at a time.
const MAX_EXCHANGES_PER_PEER: usize = 4;
/// From a stream's opening to the last byte of a stranger's first message, which both come in one flight.
const FIRST_MESSAGE: Duration = Duration::from_secs(1);

/// Exchanges of strangers at once from one source.
#[derive(Clone, Copy, Debug)]
pub(super) struct StrangerLimits {
    pub(super) per_address: usize,
    /// From a source that many share.
    pub(super) per_shared_address: usize,
}

/// All exchanges, and their limits.
pub(super) struct Turns {
    pub(super) links: Links,
    limits: StrangerLimits,
    pub(super) metrics: Arc<ScraperMetrics>,
    refusals: Arc<Refusals>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Of strangers, and of known peers.
    classes: [Class; 2],
    /// Turns of each peer.
    of_peer: HashMap<PublicKey, usize>,
}

#[derive(Default)]
struct Class {
    /// Turns without a place, oldest first.
    waiting: BTreeMap<u64, Waiting>,
    placed: usize,
    placed_of: HashMap<Source, usize>,
}

struct Waiting {
    source: Source,
    evicted: CancellationToken,
}

/// Why a peer got no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// Its source has as many as it may have.
    Source,
    All,
}

impl Class {
    /// Adds a turn; of too many, of the source or in all, the oldest leaves.
    fn wait(&mut self, id: u64, source: Source, evicted: CancellationToken, most_of_source: usize) {
        let of_source = || self.waiting.iter().filter(|(_, waiting)| waiting.source == source);
        let leaves = if of_source().count() >= most_of_source.saturating_mul(WAITING_PER_PLACE) {
            of_source().next().map(|(id, _)| *id)
        } else {
            self.waiting.keys().next().copied().filter(|_| self.waiting.len() >= MAX_WAITING)
        };
        if let Some(oldest) = leaves.and_then(|id| self.waiting.remove(&id)) {
            oldest.evicted.cancel();
        }
        self.waiting.insert(id, Waiting { source, evicted });
    }

    fn place(&mut self, source: Source, most_of_source: usize) -> Result<(), Refused> {
        if self.placed >= MAX_EXCHANGES {
            return Err(Refused::All);
        }
        let count = self.placed_of.entry(source).or_default();
        if *count >= most_of_source {
            return Err(Refused::Source);
        }
        *count += 1;
        self.placed += 1;
        Ok(())
    }

    fn leave(&mut self, source: Source) {
        self.placed -= 1;
        if let Some(count) = self.placed_of.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.placed_of.remove(&source);
            }
        }
    }
}

impl Turns {
    pub(super) fn new(
        links: Links,
        limits: StrangerLimits,
        metrics: Arc<ScraperMetrics>,
        refusals: Arc<Refusals>,
    ) -> Self {
        Self { links, limits, metrics, refusals, state: Mutex::default() }
    }

    /// A turn for a stream that a peer has opened; none if the peer has as many as it may have.
    pub(super) fn begin(self: &Arc<Self>, peer: PublicKey, link: LinkId) -> Option<Turn> {
        let source = self.links.source(link)?;
        let known = self.links.is_kept(&peer);
        let most = if known { MAX_EXCHANGES_PER_PEER } else { 1 };
        let mut state = self.state();
        let count = state.of_peer.entry(peer).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        state.next += 1;
        let (id, evicted) = (state.next, CancellationToken::new());
        let turn = Turn { turns: Arc::clone(self), id, peer, link, known, source, evicted, placed: false };
        state.class(known).wait(id, source, turn.evicted.clone(), turn.most_of_source());
        Some(turn)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn class(&mut self, known: bool) -> &mut Class {
        &mut self.classes[usize::from(known)]
    }
}

/// One of the few exchanges that a peer may have under way.
pub(super) struct Turn {
    turns: Arc<Turns>,
    id: u64,
    peer: PublicKey,
    link: LinkId,
    known: bool,
    source: Source,
    evicted: CancellationToken,
    placed: bool,
}

impl Turn {
    /// Waits until the first message was read. None if the turn was over before: the peer was too slow, or others came.
    pub(super) async fn wait_for<T>(&self, first: impl Future<Output = T>) -> Option<T> {
        let in_time = async {
            match self.known {
                true => Some(first.await),
                false => time::timeout(FIRST_MESSAGE, first).await.ok(),
            }
        };
        self.evicted.run_until_cancelled(in_time).await.flatten()
    }

    /// Takes a place; false if there is none. A peer that wants one is not taken for one that proves nothing.
    pub(super) fn take_place(&mut self) -> bool {
        self.turns.links.registering(self.link);
        let placed = {
            let mut state = self.turns.state();
            let class = state.class(self.known);
            class.waiting.remove(&self.id);
            class.place(self.source, self.most_of_source())
        };
        match placed {
            Ok(()) => {
                self.placed = true;
                self.turns.metrics.registration_began();
            }
            Err(Refused::Source) => {
                let limit = match self.source.is_shared() {
                    true => Limit::SharedStrangers,
                    false => Limit::Strangers,
                };
                self.turns.refusals.count(limit, self.source);
            }
            Err(Refused::All) => {}
        }
        self.placed
    }

    fn most_of_source(&self) -> usize {
        match (self.known, self.source.is_shared()) {
            (true, _) => usize::MAX,
            (false, true) => self.turns.limits.per_shared_address,
            (false, false) => self.turns.limits.per_address,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        let class = state.class(self.known);
        class.waiting.remove(&self.id);
        if self.placed {
            class.leave(self.source);
            self.turns.metrics.registration_ended();
        }
        if let Some(count) = state.of_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                state.of_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(third: u8) -> Source {
        Source::Network([203, 0, third, 0].into())
    }

    fn wait(class: &mut Class, id: u64, source: Source, most_of_source: usize) -> CancellationToken {
        let evicted = CancellationToken::new();
        class.wait(id, source, evicted.clone(), most_of_source);
        evicted
    }

    #[test]
    fn of_too_many_that_wait_at_a_source_the_oldest_leaves() {
        let mut class = Class::default();
        let other = wait(&mut class, 0, source(1), 1);
        let evicted: Vec<_> = (1..=3).map(|id| wait(&mut class, id, source(2), 1)).collect();
        let left: Vec<_> = evicted.iter().map(CancellationToken::is_cancelled).collect();
        assert_eq!((left, other.is_cancelled()), (vec![true, false, false], false));
    }

    #[test]
    fn of_too_many_that_wait_the_oldest_leaves_and_the_newcomer_stays() {
        let mut class = Class::default();
        let evicted: Vec<_> = (0..=MAX_WAITING as u64).map(|id| wait(&mut class, id, source(1), usize::MAX)).collect();
        assert!(evicted[0].is_cancelled() && !evicted[1].is_cancelled());
        assert_eq!(class.waiting.len(), MAX_WAITING);
    }

    #[test]
    fn a_source_has_so_many_places_and_all_together_have_so_many() {
        let mut class = Class::default();
        assert_eq!([(); 3].map(|()| class.place(source(1), 2)), [Ok(()), Ok(()), Err(Refused::Source)]);
        assert_eq!(class.place(source(2), 2), Ok(()));
        class.leave(source(1));
        assert_eq!(class.place(source(1), 2), Ok(()));
        while class.placed < MAX_EXCHANGES {
            assert_eq!(class.place(source(3), usize::MAX), Ok(()));
        }
        assert_eq!(class.place(source(4), 2), Err(Refused::All));
    }
}
