//! Places for so many at once: a bound in all, a bound of each group, and fairness at both.
//!
//! The group with most places gives one up for another group that has clearly fewer, and within a group a member for another
//! member. So nobody keeps the others out with many, and those that have equally few do not displace each other. Groups are
//! the sources of register exchanges, whose members are peers; and the peers of pulls, whose members are aliases.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use tokio_util::sync::CancellationToken;

/// Who has a place, by numbers that grow.
pub(super) struct Places<G, M> {
    most: usize,
    occupants: BTreeMap<u64, Occupant<G, M>>,
    groups: HashMap<G, Group<M>>,
}

/// How many places a group and its members have.
struct Group<M> {
    all: usize,
    of_member: HashMap<M, usize>,
}

/// Who has a place.
#[derive(Clone, Debug)]
pub(super) struct Occupant<G, M> {
    pub(super) group: G,
    pub(super) member: M,
    /// Cancelled when the place goes to somebody else.
    pub(super) evicted: CancellationToken,
}

/// What became of who asked for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Placed,
    /// There is a place, which somebody with more had before the bound was reached.
    Displaced(Full),
    Refused(Full),
}

/// The bound that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The group has as many as it may have.
    Group,
    All,
}

impl<G: Clone + Eq + Hash, M: Clone + Eq + Hash> Places<G, M> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, occupants: BTreeMap::new(), groups: HashMap::new() }
    }

    /// Gives a place. At a bound, which is returned, the oldest of the group and member with most leaves.
    pub(super) fn insist(&mut self, id: u64, occupant: Occupant<G, M>, most_of_group: usize) -> Option<Full> {
        let full = self.full(&occupant, most_of_group);
        if let Some(full) = full {
            let within = (full == Full::Group).then_some(&occupant.group);
            self.fullest(within).into_iter().for_each(|id| self.evict(id));
        }
        self.insert(id, occupant);
        full
    }

    /// Gives a place, at a bound only if somebody has clearly more, who then leaves.
    pub(super) fn ask(&mut self, id: u64, occupant: Occupant<G, M>, most_of_group: usize) -> Asked {
        let Some(full) = self.full(&occupant, most_of_group) else {
            self.insert(id, occupant);
            return Asked::Placed;
        };
        let gives_way = match full {
            Full::Group => self.fuller_member(&occupant),
            Full::All => self.fuller_group(&occupant).or_else(|| self.fuller_member(&occupant)),
        };
        let Some(oldest) = gives_way else { return Asked::Refused(full) };
        self.evict(oldest);
        self.insert(id, occupant);
        Asked::Displaced(full)
    }

    /// Frees the place. False if there was none, or none any more.
    pub(super) fn leave(&mut self, id: u64) -> bool {
        let Some(Occupant { group, member, .. }) = self.occupants.remove(&id) else { return false };
        if let Some(counts) = self.groups.get_mut(&group) {
            counts.all -= 1;
            decrease(&mut counts.of_member, member);
            if counts.all == 0 {
                self.groups.remove(&group);
            }
        }
        true
    }

    fn insert(&mut self, id: u64, occupant: Occupant<G, M>) {
        let none = || Group { all: 0, of_member: HashMap::new() };
        let counts = self.groups.entry(occupant.group.clone()).or_insert_with(none);
        counts.all += 1;
        *counts.of_member.entry(occupant.member.clone()).or_default() += 1;
        self.occupants.insert(id, occupant);
    }

    fn evict(&mut self, id: u64) {
        if let Some(occupant) = self.occupants.get(&id) {
            occupant.evicted.cancel();
        }
        self.leave(id);
    }

    fn full(&self, newcomer: &Occupant<G, M>, most_of_group: usize) -> Option<Full> {
        if self.of_group(&newcomer.group) >= most_of_group {
            return Some(Full::Group);
        }
        (self.occupants.len() >= self.most).then_some(Full::All)
    }

    /// One of another group that has more than the newcomer's would have.
    fn fuller_group(&self, newcomer: &Occupant<G, M>) -> Option<u64> {
        let id = self.fullest(None)?;
        (self.of_group(&self.occupants.get(&id)?.group) > self.of_group(&newcomer.group) + 1).then_some(id)
    }

    /// One of a member of the newcomer's group that has more than the newcomer would have.
    fn fuller_member(&self, newcomer: &Occupant<G, M>) -> Option<u64> {
        let id = self.fullest(Some(&newcomer.group))?;
        (self.of_member(self.occupants.get(&id)?) > self.of_member(newcomer) + 1).then_some(id)
    }

    /// The oldest of the member with most in the group with most, or in the given one.
    fn fullest(&self, within: Option<&G>) -> Option<u64> {
        let among = self.occupants.iter().filter(|(_, occupant)| within.is_none_or(|group| occupant.group == *group));
        among
            .max_by_key(|&(id, occupant)| (self.of_group(&occupant.group), self.of_member(occupant), Reverse(id)))
            .map(|(id, _)| *id)
    }

    fn of_group(&self, group: &G) -> usize {
        self.groups.get(group).map_or(0, |counts| counts.all)
    }

    fn of_member(&self, occupant: &Occupant<G, M>) -> usize {
        let counts = self.groups.get(&occupant.group).and_then(|counts| counts.of_member.get(&occupant.member));
        counts.copied().unwrap_or_default()
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
    use crate::{
        identity::{KeyPair, PublicKey},
        network::Source,
    };

    type Places = super::Places<Source, PublicKey>;

    fn source(third: u8) -> Source {
        Source::Network([203, 0, third, 0].into())
    }

    fn peer(seed: u8) -> PublicKey {
        KeyPair::from_seed(&[seed; 32]).public()
    }

    fn occupant(group: Source, member: PublicKey) -> Occupant<Source, PublicKey> {
        Occupant { group, member, evicted: CancellationToken::new() }
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
        assert_eq!(places.insist(5, occupant(source(2), peer(9)), 2), Some(Full::Group));
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
        assert_eq!(places.ask(3, occupant(source(1), peer(9)), 3), Asked::Displaced(Full::Group));
        assert_eq!(places.ask(4, occupant(source(1), peer(0)), 3), Asked::Refused(Full::Group));
        assert_eq!(places.ask(5, occupant(source(2), peer(0)), 3), Asked::Placed);
        assert_eq!(evicted(&first), [0]);
        assert_eq!((0..6).filter(|id| places.leave(*id)).collect::<Vec<_>>(), [1, 2, 3, 5], "those that had a place");
        assert!(places.occupants.is_empty() && places.groups.is_empty());
    }
}
