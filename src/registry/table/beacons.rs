//! The beacons of a table, by name and by end, and what the passing of time does to them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    mem,
    ops::Bound,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::Effects;
use crate::registry::{Beacon, BeaconEventKind, BeaconName, Change, lease::later};

/// Kinds that are remembered when their last beacon is gone.
const KINDS: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Beacons {
    all: BTreeMap<BeaconName, Entry>,
    due: BTreeSet<(SystemTime, BeaconName)>,
    /// The first kinds that had a beacon since the load.
    kinds: HashSet<String>,
    bytes: u64,
    /// Those of which damage of the store may have taken a change, and that nobody has registered since.
    unconfirmed: BTreeSet<BeaconName>,
}

#[derive(Debug)]
struct Entry {
    beacon: Arc<Beacon>,
    /// What the beacon got beyond its end since it was registered, as nobody watched for a while.
    given: Duration,
}

/// What a registration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Registered,
    Updated,
    /// It said the same before.
    Renewed,
}

impl Beacons {
    /// Those that are over end at the first sweep: whoever asked for a lease registers again.
    pub(super) fn load(beacons: Vec<Arc<Beacon>>) -> Self {
        let mut loaded = Self::default();
        beacons.into_iter().for_each(|beacon| loaded.insert(Entry { beacon, given: Duration::ZERO }));
        loaded
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn insert(&mut self, entry: Entry) {
        self.remove(&entry.beacon.name);
        let Beacon { name, expires_at, .. } = &*entry.beacon;
        if self.kinds.len() < KINDS && !self.kinds.contains(name.kind()) {
            self.kinds.insert(name.kind().to_owned());
        }
        self.due.extend(expires_at.map(|end| (end, name.clone())));
        self.bytes += entry.beacon.len_bytes();
        self.all.insert(name.clone(), entry);
    }

    fn remove(&mut self, name: &BeaconName) -> Option<Entry> {
        let entry = self.all.remove(name)?;
        self.bytes -= entry.beacon.len_bytes();
        if let Some(end) = entry.beacon.expires_at {
            self.due.remove(&(end, name.clone()));
        }
        Some(entry)
    }

    pub(super) fn get(&self, name: &BeaconName) -> Option<&Arc<Beacon>> {
        self.all.get(name).map(|entry| &entry.beacon)
    }

    /// All of them, in the order of kinds and keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Beacon>> {
        self.all.values().map(|entry| &entry.beacon)
    }

    /// Those of a kind, in the order of their keys; `None` if none is there, or was since the load, of the first thousand kinds.
    pub(super) fn of(&self, kind: &str) -> Option<Vec<Arc<Beacon>>> {
        let from = self.all.range((Bound::Included(BeaconName::first_of(kind)), Bound::Unbounded));
        let of_kind: Vec<_> =
            from.take_while(|(name, _)| name.kind() == kind).map(|(_, entry)| Arc::clone(&entry.beacon)).collect();
        (!of_kind.is_empty() || self.kinds.contains(kind)).then_some(of_kind)
    }

    pub(super) fn doubt(&mut self, unconfirmed: BTreeSet<BeaconName>) {
        self.unconfirmed = unconfirmed;
    }

    pub(super) fn unconfirmed(&self) -> &BTreeSet<BeaconName> {
        &self.unconfirmed
    }

    /// Takes what is in doubt for certain: nobody need register a beacon again.
    pub(super) fn confirm_all(&mut self) -> BTreeSet<BeaconName> {
        mem::take(&mut self.unconfirmed)
    }

    pub(super) fn is_certain(&self, name: &BeaconName) -> bool {
        self.all.contains_key(name) && !self.unconfirmed.contains(name)
    }

    /// Takes another scraper's beacon over; false if it says the same as the one that was there.
    pub(super) fn adopt(&mut self, beacon: Arc<Beacon>) -> bool {
        let was_in_doubt = self.unconfirmed.remove(&beacon.name);
        let is_news = !self.get(&beacon.name).is_some_and(|held| held.says_as(&beacon));
        self.insert(Entry { beacon, given: Duration::ZERO });
        is_news || was_in_doubt
    }

    /// Forgets what another scraper has removed; false if there was none.
    pub(super) fn drop(&mut self, name: &BeaconName) -> bool {
        self.unconfirmed.remove(name);
        self.remove(name).is_some()
    }

    /// Keeps the beacon, in place of the one of its name.
    pub(super) fn register(&mut self, beacon: Beacon, effects: &mut Effects) -> Kept {
        effects.relisted |= self.unconfirmed.remove(&beacon.name);
        let held = self.get(&beacon.name);
        let registered_at = held.map_or(beacon.registered_at, |held| held.registered_at);
        let kept = match held {
            None => Kept::Registered,
            Some(held) if held.says_as(&beacon) => Kept::Renewed,
            Some(_) => Kept::Updated,
        };
        match kept {
            Kept::Registered => effects.beacon(&beacon.name, BeaconEventKind::Registered),
            Kept::Updated => effects.beacon(&beacon.name, BeaconEventKind::Updated),
            // In doubt its change is noted as one, so that nobody waits for it any more.
            Kept::Renewed if beacon.lease.is_none() && !effects.relisted => return kept,
            Kept::Renewed => {}
        }
        let beacon = Arc::new(Beacon { registered_at, ..beacon });
        effects.changes.push(Change::PutBeacon(Arc::clone(&beacon)));
        self.insert(Entry { beacon, given: Duration::ZERO });
        kept
    }

    /// Forgets the beacon; false if there is none.
    pub(super) fn forget(&mut self, name: &BeaconName, why: BeaconEventKind, effects: &mut Effects) -> bool {
        let is_there = self.remove(name).is_some();
        self.unconfirmed.remove(name);
        if is_there {
            effects.beacon(name, why);
            effects.changes.push(Change::RemoveBeacon(name.clone()));
        }
        is_there
    }

    /// Forgets the beacons whose lease is over.
    pub(super) fn end(&mut self, now: SystemTime, effects: &mut Effects) {
        while let Some((_, name)) = self.due.first().filter(|(end, _)| *end <= now).cloned() {
            self.forget(&name, BeaconEventKind::Expired, effects);
        }
    }

    /// As leases of aliases: no beacon ends within half its lease, for one lease in all unless it is registered again.
    pub(super) fn give_time(&mut self, now: SystemTime, effects: &mut Effects) {
        self.move_ends(effects, |beacon, lease, end, given| {
            let from = end.max(now);
            let missing = later(now, lease / 2).duration_since(from).unwrap_or_default();
            let more = missing.min(lease.saturating_sub(given));
            (!more.is_zero()).then(|| Entry { beacon: Arc::new(beacon.until(later(from, more))), given: given + more })
        });
    }

    /// Lets no beacon run longer than one that is registered now.
    pub(super) fn shorten(&mut self, now: SystemTime, effects: &mut Effects) {
        self.move_ends(effects, |beacon, lease, end, given| {
            let at_most = later(now, lease);
            (end > at_most).then(|| Entry { beacon: Arc::new(beacon.until(at_most)), given })
        });
    }

    /// Moves the ends of those that `moved` has another entry for. It gets a beacon, its lease, its end, and what it was given.
    fn move_ends(
        &mut self,
        effects: &mut Effects,
        moved: impl Fn(&Beacon, Duration, SystemTime, Duration) -> Option<Entry>,
    ) {
        let all = self.all.values();
        let moved: Vec<_> = all
            .filter_map(|Entry { beacon, given }| moved(beacon, beacon.lease?, beacon.expires_at?, *given))
            .collect();
        for entry in moved {
            effects.changes.push(Change::PutBeacon(Arc::clone(&entry.beacon)));
            self.insert(entry);
        }
    }
}
