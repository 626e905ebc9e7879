//! What the files of a table hold, damaged or not: of each name the entry of the last group.
//!
//! Groups are numbered without a hole, and each says how many frames it has. What a missing frame held may have replaced
//! or removed leases written before: those are in *doubt*. Leases written after the last hole are certain.

use std::collections::{BTreeMap, BTreeSet};

use super::frame::{Body, Entry, Place};
use crate::registry::Name;

/// The entry of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// The group that the entry was written with; 0 in a table of format 1.
    pub(super) group: u64,
    pub(super) entry: Entry,
}

/// What each commit writes beside its changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) format: u32,
    /// The group of the commit.
    pub(super) sequence: u64,
    /// Leases and beacons after the commit.
    pub(super) entries: u64,
    /// The table.
    pub(super) id: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) entries: BTreeMap<Name, Stored>,
    /// The last.
    pub(super) mark: Option<Mark>,
    /// Which frames of a group were found, and how many there are.
    groups: BTreeMap<u64, (u32, BTreeSet<u32>)>,
}

impl Content {
    pub(super) fn take(&mut self, place: Place, body: Body) {
        let group = self.groups.entry(place.group).or_default();
        group.0 = place.of;
        group.1.insert(place.index);
        match body {
            Body::Mark { format, entries, id } => self.see_mark(Mark { format, sequence: place.group, entries, id }),
            Body::Of(name, entry) => self.put(name, Stored { group: place.group, entry }),
        }
    }

    pub(super) fn see_mark(&mut self, mark: Mark) {
        if self.mark.is_none_or(|last| last.sequence <= mark.sequence) {
            self.mark = Some(mark);
        }
    }

    /// Stores the entry, unless there is a later one.
    pub(super) fn put(&mut self, name: Name, stored: Stored) {
        let last = self.entries.get(&name);
        if last.is_none_or(|last| last.group <= stored.group) {
            self.entries.insert(name, stored);
        }
    }

    /// Takes over what is later in the other, or only there.
    pub(super) fn merge(&mut self, other: Self) {
        other.entries.into_iter().for_each(|(name, stored)| self.put(name, stored));
        other.mark.into_iter().for_each(|mark| self.see_mark(mark));
        for (number, (of, found)) in other.groups {
            let group = self.groups.entry(number).or_default();
            group.0 = of;
            group.1.extend(found);
        }
    }

    /// The leases and beacons, those that cannot be read included.
    pub(super) fn count(&self) -> u64 {
        self.entries.values().filter(|stored| !matches!(stored.entry, Entry::Removed(_))).count() as u64
    }

    pub(super) fn unreadable(&self) -> u64 {
        self.entries.values().filter(|stored| stored.entry == Entry::Unreadable).count() as u64
    }

    pub(super) fn last_group(&self) -> u64 {
        self.groups.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// The last group of which not everything was found, if all up to `known` were once there. Leases of earlier groups
    /// are in doubt.
    pub(super) fn last_hole(&self, known: u64) -> u64 {
        let last = self.last_group();
        if last < known {
            return u64::MAX;
        }
        let whole = self
            .groups
            .iter()
            .rev()
            .zip(0..)
            .take_while(|((number, (of, found)), below)| **number + below == last && found.len() == *of as usize);
        last - whole.count() as u64
    }
}
