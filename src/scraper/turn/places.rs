//! Places for so many turns at once: a bound in all, a bound of each source, and fairness at both.
//!
//! The source with most turns gives one up for another source that has clearly fewer, and within a source a peer for
//! another peer. So nobody keeps the others out with many turns, and peers that have equally few do not displace each other.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use tokio_util::sync::CancellationToken;

use crate::{identity::PublicKey, network::Source};

/// The turns that have a place, by their numbers, which grow.
pub(super) struct Places {
    most: usize,
    occupants: BTreeMap<u64, Occupant>,
    of_source: HashMap<Source, usize>,
    of_peer: HashMap<(Source, PublicKey), usize>,
}

/// Who has a place.
#[derive(Clone, Debug)]
pub(super) struct Occupant {
    pub(super) source: Source,
    pub(super) peer: PublicKey,
    /// Cancelled when the place goes to somebody else.
    pub(super) evicted: CancellationToken,
}

/// What became of a turn that asked for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Placed,
    /// The turn has a place, which somebody with more had before the bound was reached.
    Displaced(Full),
    Refused(Full),
}

/// The bound that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The source has as many as it may have.
    Source,
    All,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { most, occupants: BTreeMap::new(), of_source: HashMap::new(), of_peer: HashMap::new() }
    }

    /// Gives the turn a place. At a bound, which is returned, the oldest turn of the source and peer with most leaves.
    pub(super) fn insist(&mut self, id: u64, occupant: Occupant, most_of_source: usize) -> Option<Full> {
        let full = self.full(&occupant, most_of_source);
        if let Some(full) = full {
            let within = (full == Full::Source).then_some(occupant.source);
            self.fullest(within).into_iter().for_each(|id| self.evict(id));
        }
        self.insert(id, occupant);
        full
    }

    /// Gives the turn a place, at a bound only if somebody has clearly more, who then leaves.
    pub(super) fn ask(&mut self, id: u64, occupant: Occupant, most_of_source: usize) -> Asked {
        let Some(full) = self.full(&occupant, most_of_source) else {
            self.insert(id, occupant);
            return Asked::Placed;
        };
        let gives_way = match full {
            Full::Source => self.fuller_peer(&occupant),
            Full::All => self.fuller_source(&occupant).or_else(|| self.fuller_peer(&occupant)),
        };
        let Some(oldest) = gives_way else { return Asked::Refused(full) };
        self.evict(oldest);
        self.insert(id, occupant);
        Asked::Displaced(full)
    }

    /// Frees the place of the turn, if the turn has one.
    pub(super) fn leave(&mut self, id: u64) {
        if let Some(Occupant { source, peer, .. }) = self.occupants.remove(&id) {
            decrease(&mut self.of_source, source);
            decrease(&mut self.of_peer, (source, peer));
        }
    }

    fn insert(&mut self, id: u64, occupant: Occupant) {
        *self.of_source.entry(occupant.source).or_default() += 1;
        *self.of_peer.entry((occupant.source, occupant.peer)).or_default() += 1;
        self.occupants.insert(id, occupant);
    }

    fn evict(&mut self, id: u64) {
        if let Some(occupant) = self.occupants.get(&id) {
            occupant.evicted.cancel();
        }
        self.leave(id);
    }

    fn full(&self, newcomer: &Occupant, most_of_source: usize) -> Option<Full> {
        if self.at_source(newcomer.source) >= most_of_source {
            return Some(Full::Source);
        }
        (self.occupants.len() >= self.most).then_some(Full::All)
    }

    /// A turn of another source that has more than the newcomer's would have.
    fn fuller_source(&self, newcomer: &Occupant) -> Option<u64> {
        let id = self.fullest(None)?;
        (self.at_source(self.occupants.get(&id)?.source) > self.at_source(newcomer.source) + 1).then_some(id)
    }

    /// A turn of a peer at the newcomer's source that has more than the newcomer would have.
    fn fuller_peer(&self, newcomer: &Occupant) -> Option<u64> {
        let id = self.fullest(Some(newcomer.source))?;
        (self.of_same_peer(self.occupants.get(&id)?) > self.of_same_peer(newcomer) + 1).then_some(id)
    }

    /// The oldest turn of the peer with most at the source with most, or at the given one.
    fn fullest(&self, within: Option<Source>) -> Option<u64> {
        let among = self.occupants.iter().filter(|(_, occupant)| within.is_none_or(|source| occupant.source == source));
        among
            .max_by_key(|&(id, occupant)| (self.at_source(occupant.source), self.of_same_peer(occupant), Reverse(id)))
            .map(|(id, _)| *id)
    }

    fn at_source(&self, source: Source) -> usize {
        self.of_source.get(&source).copied().unwrap_or_default()
    }

    fn of_same_peer(&self, occupant: &Occupant) -> usize {
        self.of_peer.get(&(occupant.source, occupant.peer)).copied().unwrap_or_default()
    }
}

/// Counts one less; nothing is kept of a count that is zero.
pub(super) fn decrease<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    fn source(third: u8) -> Source {
        Source::Network([203, 0, third, 0].into())
    }

    fn peer(seed: u8) -> PublicKey {
        KeyPair::from_seed(&[seed; 32]).public()
    }

    fn occupant(source: Source, peer: PublicKey) -> Occupant {
        Occupant { source, peer, evicted: CancellationToken::new() }
    }

    /// Turns of one source and of so many peers, in turn.
    fn ask(places: &mut Places, ids: std::ops::Range<u64>, source: Source, peers: u8) -> Vec<CancellationToken> {
        let ask = |id: u64| {
            let occupant = occupant(source, peer(u8::try_from(id % u64::from(peers)).expect("few")));
            assert_eq!(places.ask(id, occupant.clone(), usize::MAX), Asked::Placed);
            occupant.evicted
        };
        ids.map(ask).collect()
    }

    fn evicted(tokens: &[CancellationToken]) -> Vec<usize> {
        tokens.iter().enumerate().filter(|(_, token)| token.is_cancelled()).map(|(at, _)| at).collect()
    }

    #[test]
    fn a_newcomer_that_insists_has_the_place_of_the_oldest_where_most_are() {
        let mut places = Places::new(4);
        let few = ask(&mut places, 0..1, source(1), 1);
        let many = ask(&mut places, 1..4, source(2), 3);
        assert_eq!(places.insist(4, occupant(source(3), peer(9)), 3), Some(Full::All));
        assert_eq!((evicted(&few), evicted(&many)), (vec![], vec![0]));
        places.leave(0);
        assert_eq!(places.insist(5, occupant(source(2), peer(9)), 2), Some(Full::Source));
        assert_eq!(evicted(&many), [0, 1], "of the newcomer's own source");
        assert_eq!((places.insist(6, occupant(source(1), peer(9)), 2), places.occupants.len()), (None, 4));
    }

    #[test]
    fn holders_that_take_all_places_give_one_up_for_a_peer_with_few() {
        let mut places = Places::new(8);
        let hostile = ask(&mut places, 0..8, source(1), 2);
        assert_eq!(
            places.ask(8, occupant(source(2), peer(9)), usize::MAX),
            Asked::Displaced(Full::All),
            "of another source"
        );
        assert_eq!(
            places.ask(9, occupant(source(1), peer(9)), usize::MAX),
            Asked::Displaced(Full::All),
            "of the same source"
        );
        assert_eq!(evicted(&hostile), [0, 1], "the oldest of each of the two peers");
        assert_eq!(
            places.ask(10, occupant(source(1), peer(1)), usize::MAX),
            Asked::Refused(Full::All),
            "one that has three"
        );
        assert_eq!(places.occupants.len(), 8);
    }

    #[test]
    fn who_has_no_more_than_the_newcomer_is_not_displaced() {
        let mut places = Places::new(3);
        let there = ask(&mut places, 0..3, source(1), 3);
        assert_eq!(places.ask(3, occupant(source(1), peer(9)), usize::MAX), Asked::Refused(Full::All));
        places.leave(2);
        assert_eq!(places.ask(4, occupant(source(2), peer(9)), usize::MAX), Asked::Placed);
        assert_eq!(
            places.ask(5, occupant(source(2), peer(8)), usize::MAX),
            Asked::Refused(Full::All),
            "two each, then"
        );
        assert_eq!(evicted(&there), [] as [usize; 0]);
    }

    #[test]
    fn a_source_has_so_many_places_and_shares_them_out_among_its_peers() {
        let mut places = Places::new(9);
        let first = ask(&mut places, 0..3, source(1), 1);
        assert_eq!(places.ask(3, occupant(source(1), peer(9)), 3), Asked::Displaced(Full::Source));
        assert_eq!(places.ask(4, occupant(source(1), peer(0)), 3), Asked::Refused(Full::Source));
        assert_eq!(places.ask(5, occupant(source(2), peer(0)), 3), Asked::Placed);
        assert_eq!(evicted(&first), [0]);
        (0..6).for_each(|id| places.leave(id));
        assert!(places.occupants.is_empty() && places.of_source.is_empty() && places.of_peer.is_empty());
    }
}
