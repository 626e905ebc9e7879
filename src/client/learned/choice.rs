//! Which members of a group a client is to link beside the scrapers that it was given. No task, no clock: `now` is passed in.
//!
//! A client wants to be registered with two scrapers. Each client has its own order of the members (rendezvous hashing), so
//! a fleet spreads over them. A choice stands while it works: order decides only who comes next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use blake2::{Blake2s256, Digest};
use tokio::time::Instant;

use crate::{client::group::Pace, identity::PublicKey};

/// Scrapers that a client wants to be registered with, and most that it links without having been given them.
const WANTED: usize = 2;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// A further member is to be linked.
    Link(PublicKey),
    /// The member is needed no more, or cannot be reached. The table that it shares with the others keeps our aliases.
    Leave(PublicKey),
    /// The scraper is no member any more: its own table is to release our aliases.
    Release(PublicKey),
}

/// The choice, and what it depends on.
pub(super) struct Choice {
    client: PublicKey,
    pace: Pace,
    /// The pace's, for as many registrations as there are.
    patience: Duration,
    given: BTreeMap<PublicKey, Standing>,
    learned: BTreeMap<PublicKey, Learned>,
    /// Members that could not be reached, and since when they are not tried.
    avoided: BTreeMap<PublicKey, Instant>,
}

struct Learned {
    standing: Standing,
    unnamed_since: Option<Instant>,
}

/// Whether a scraper can be relied on: what it has been for a while.
struct Standing {
    registered: bool,
    since: Instant,
    good: bool,
}

impl Standing {
    /// Good until it is shown otherwise.
    fn new(now: Instant) -> Self {
        Self { registered: false, since: now, good: true }
    }

    fn update(&mut self, registered: bool, now: Instant, patience: Duration) {
        if self.registered != registered {
            (self.registered, self.since) = (registered, now);
        }
        if now.duration_since(self.since) >= patience {
            self.good = registered;
        }
    }

    /// When it will have changed, if nothing happens.
    fn due(&self, patience: Duration) -> Option<Instant> {
        (self.registered != self.good).then(|| self.since + patience)
    }
}

impl Choice {
    pub(super) fn new(client: PublicKey, given: &BTreeSet<PublicKey>, pace: Pace, now: Instant) -> Self {
        let given = given.iter().map(|key| (*key, Standing::new(now))).collect();
        Self { client, patience: pace.patience, pace, given, learned: BTreeMap::new(), avoided: BTreeMap::new() }
    }

    /// The members that are linked, or are to be.
    pub(super) fn learned(&self) -> impl Iterator<Item = &PublicKey> {
        self.learned.keys()
    }

    /// What to do, where these are named and these have registered us. `busy` members are still being let go.
    pub(super) fn decide<'a>(
        &mut self,
        named: impl Iterator<Item = &'a PublicKey>,
        registered: &BTreeSet<PublicKey>,
        busy: &BTreeSet<PublicKey>,
        now: Instant,
    ) -> Vec<Step> {
        let named: BTreeSet<PublicKey> = named.copied().collect();
        self.update(&named, registered, now);
        let mut steps = Vec::new();
        for key in self.unnamed(now) {
            self.learned.remove(&key);
            steps.push(Step::Release(key));
        }
        let wanted = WANTED.saturating_sub(self.given.values().filter(|standing| standing.good).count());
        let mut free = self.free(named, busy).into_iter();
        while self.learned.len() < wanted
            && let Some(next) = free.next()
        {
            steps.push(self.link(next, now));
        }
        let is_bad = |(key, learned): (&PublicKey, &Learned)| (!learned.standing.good).then_some(*key);
        for bad in self.learned.iter().filter_map(is_bad).collect::<Vec<_>>() {
            let next = if self.learned.len() > wanted { None } else { free.next() };
            // A member in whose place there is no other is dialled again and again.
            if next.is_some() || self.learned.len() > wanted {
                self.learned.remove(&bad);
                self.avoided.insert(bad, now);
                steps.push(Step::Leave(bad));
            }
            steps.extend(next.map(|next| self.link(next, now)));
        }
        while self.learned.len() > wanted
            && let Some(last) = self.learned.keys().copied().max_by_key(|key| self.rank(key))
        {
            self.learned.remove(&last);
            steps.push(Step::Leave(last));
        }
        steps
    }

    /// When to decide anew, if nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        let standings = self.given.values().chain(self.learned.values().map(|learned| &learned.standing));
        let changes = standings.filter_map(|standing| standing.due(self.patience));
        let unnamed = self.learned.values().filter_map(|learned| Some(learned.unnamed_since? + self.pace.unnamed));
        changes.chain(unnamed).chain(self.avoided.values().map(|since| *since + self.pace.retry)).min()
    }

    fn update(&mut self, named: &BTreeSet<PublicKey>, registered: &BTreeSet<PublicKey>, now: Instant) {
        let pace = self.pace;
        self.patience = if registered.is_empty() { pace.alone } else { pace.patience };
        for (key, standing) in &mut self.given {
            standing.update(registered.contains(key), now, self.patience);
        }
        for (key, Learned { standing, unnamed_since }) in &mut self.learned {
            standing.update(registered.contains(key), now, self.patience);
            *unnamed_since = (!named.contains(key)).then(|| unnamed_since.unwrap_or(now));
        }
        self.avoided.retain(|key, since| named.contains(key) && now.duration_since(*since) < pace.retry);
    }

    /// Learned scrapers that nobody has named for long.
    fn unnamed(&self, now: Instant) -> Vec<PublicKey> {
        let is_over = |since: Instant| now.duration_since(since) >= self.pace.unnamed;
        let unnamed = self.learned.iter().filter(|(_, learned)| learned.unnamed_since.is_some_and(is_over));
        unnamed.map(|(key, _)| *key).collect()
    }

    /// Members that may be linked, the next one first.
    fn free(&self, named: BTreeSet<PublicKey>, busy: &BTreeSet<PublicKey>) -> Vec<PublicKey> {
        let is_free = |key: &PublicKey| {
            *key != self.client
                && !self.given.contains_key(key)
                && !self.learned.contains_key(key)
                && !self.avoided.contains_key(key)
                && !busy.contains(key)
        };
        let mut free: Vec<PublicKey> = named.into_iter().filter(is_free).collect();
        free.sort_by_key(|key| self.rank(key));
        free
    }

    fn link(&mut self, key: PublicKey, now: Instant) -> Step {
        self.learned.insert(key, Learned { standing: Standing::new(now), unnamed_since: None });
        Step::Link(key)
    }

    /// The member's place in this client's order.
    fn rank(&self, member: &PublicKey) -> [u8; 32] {
        let hash = Blake2s256::new().chain_update(self.client.as_bytes()).chain_update(member.as_bytes());
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests;
