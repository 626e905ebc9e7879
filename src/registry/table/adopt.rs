//! What another scraper over the same store has decided, which this table takes over as it is.

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use super::{Effects, Table, later};
use crate::registry::{Change, Entry, Foreign, LeaseState, Name, Note};

impl Table {
    /// Puts in place of the name's entry what stands in the store.
    pub(in crate::registry) fn adopt(&mut self, foreign: Foreign, now: SystemTime, effects: &mut Effects) {
        match (&foreign.name, &foreign.entry) {
            (Name::Alias(alias), entry) => {
                let before = self.entries.remove(alias);
                if let Some(before) = &before {
                    self.unindex(before);
                }
                self.unconfirmed.remove(alias);
                self.ended.take(alias);
                if let Some(Entry::Lease(lease)) = entry {
                    self.take_stored(Arc::clone(lease), now);
                }
                let listed = self.entries.get(alias);
                effects.relisted |= match (before, listed) {
                    (Some(before), Some(after)) => {
                        before.lapsed != after.lapsed || !before.lease.is_listed_as(&after.lease)
                    }
                    (before, after) => before.is_some() || after.is_some(),
                };
            }
            (Name::Beacon(name), Some(Entry::Beacon(beacon))) => {
                effects.relisted |= self.beacons.adopt(Arc::clone(beacon));
                debug_assert_eq!(*name, beacon.name);
            }
            (Name::Beacon(name), _) => effects.relisted |= self.beacons.drop(name),
        }
        effects.notes.push(Note::Adopted(foreign));
    }

    /// Merges the content of another store, or of an older state of the one it was: of each name what was said last. Removals up
    /// to `heard_to` came before what the table has. What the store has not, or an older one of, is changed there.
    pub(in crate::registry) fn merge(
        &mut self,
        all: Vec<Foreign>,
        heard_to: u64,
        now: SystemTime,
        effects: &mut Effects,
    ) {
        let mut found = HashSet::new();
        for foreign in all {
            found.insert(foreign.name.clone());
            let is_older = |ours: &Entry| match &foreign.entry {
                Some(theirs) => theirs.said_at() < ours.said_at(),
                None => foreign.at <= heard_to,
            };
            match self.entry_of(&foreign.name).filter(is_older) {
                Some(ours) => {
                    effects.notes.push(Note::Adopted(foreign));
                    effects.changes.push(put(&ours));
                }
                None => self.adopt(foreign, now, effects),
            }
        }
        let names = self.entries.keys().cloned().map(Name::Alias);
        let names: Vec<Name> =
            names.chain(self.beacons.iter().map(|beacon| Name::Beacon(beacon.name.clone()))).collect();
        for name in names.into_iter().filter(|name| !found.contains(name)) {
            effects.changes.extend(self.entry_of(&name).as_ref().map(put));
        }
    }

    /// Writes again what the store has lost, unless its time is over: then it is dropped.
    pub(in crate::registry) fn restore(&mut self, name: Name, at: u64, now: SystemTime, effects: &mut Effects) {
        let entry = self.entry_of(&name).filter(|entry| match entry {
            Entry::Lease(lease) => lease.state(now) == LeaseState::Active,
            Entry::Beacon(_) => true,
        });
        match entry {
            Some(entry) => {
                effects.changes.push(put(&entry));
                effects.notes.push(Note::Adopted(Foreign { name, entry: Some(entry), base: 0, at }));
            }
            None => self.adopt(Foreign { name, entry: None, base: 0, at }, now, effects),
        }
    }

    fn entry_of(&self, name: &Name) -> Option<Entry> {
        match name {
            Name::Alias(alias) => self.entries.get(alias).map(|entry| Entry::Lease(Arc::clone(&entry.lease))),
            Name::Beacon(name) => self.beacons.get(name).cloned().map(Entry::Beacon),
        }
    }

    /// When a lease ends that is registered now, after it had ended at `before`: not each renewal of a lease that runs for long
    /// moves its end.
    pub(super) fn end_of_lease(&self, before: Option<SystemTime>, now: SystemTime) -> SystemTime {
        let asked = later(now, self.config.lease);
        match before {
            Some(before) if !self.config.slack.is_zero() && before >= asked => before,
            _ => later(asked, self.config.slack),
        }
    }
}

fn put(entry: &Entry) -> Change {
    match entry {
        Entry::Lease(lease) => Change::Put(Arc::clone(lease)),
        Entry::Beacon(beacon) => Change::PutBeacon(Arc::clone(beacon)),
    }
}
