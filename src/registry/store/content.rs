//! What the table's file holds, damaged or not.
//!
//! Groups are numbered without a hole, and each says how many frames it has: a missing frame is noticed. What a hole took
//! may have replaced or removed leases written before: those are in *doubt*. Leases written after the last hole are
//! certain. A base holds nothing that another frame of it replaces, so a hole in the first group puts nothing in doubt.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::Arc,
};

use super::frame::{Entry, Format, Frame, Place, Scanner};
use crate::{registry::Lease, wire::Alias};

/// A lease in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// The group that the lease was written with.
    pub(super) group: u64,
    pub(super) lease: Arc<Lease>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) leases: BTreeMap<Alias, Stored>,
    /// The last group.
    pub(super) sequence: u64,
    /// Where the last group ends. What follows was not acknowledged.
    pub(super) len: u64,
    pub(super) damaged: bool,
    /// Leases of this group and those before are in doubt.
    pub(super) doubt: u64,
    pub(super) unreadable: u64,
}

/// The file has another format; it was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OtherFormat(pub(super) u32);

impl Content {
    /// Reads a file of which all groups up to `known` were once there. An unfinished last group after those was not
    /// acknowledged, and is left out.
    pub(super) fn read(from: impl Read, known: u64) -> io::Result<Result<Self, OtherFormat>> {
        let mut scanner = Scanner::new(from);
        let mut content = Self::default();
        match scanner.format()? {
            Format::Ours => content.len = scanner.position(),
            Format::Other(format) => return Ok(Err(OtherFormat(format))),
            Format::Unknown => content.damaged = true,
        }
        let mut group: Option<Group> = None;
        let mut expected = scanner.position();
        while let Some(Frame { place, entry, start, end }) = scanner.next()? {
            content.damaged |= start != expected;
            expected = end;
            match &mut group {
                Some(group) if group.place.group == place.group => content.damaged |= !group.take(place, entry, end),
                // A page of an older file, or one that is there twice.
                Some(group) if group.place.group > place.group => content.damaged = true,
                _ => {
                    if let Some(whole) = group.replace(Group::new(place, entry, end)) {
                        content.apply(whole);
                    }
                }
            }
        }
        match group {
            Some(last) if !last.is_whole() && last.place.group > known && content.sequence > 0 => {}
            Some(last) => content.apply(last),
            None => {}
        }
        Ok(Ok(content))
    }

    fn apply(&mut self, group: Group) {
        let number = group.place.group;
        let is_first = self.sequence == 0;
        let follows = group.is_base || number == self.sequence.saturating_add(1);
        if !group.is_whole() || !follows {
            self.damaged = true;
            if !is_first {
                self.doubt = number.saturating_sub(1);
            }
        }
        for entry in group.entries {
            match entry {
                Entry::Base => {}
                Entry::Put(lease) => {
                    self.leases.insert(lease.alias.clone(), Stored { group: number, lease: Arc::from(lease) });
                }
                Entry::Remove(alias) => {
                    self.leases.remove(&alias);
                }
                Entry::Unreadable(alias) => {
                    self.leases.remove(&alias);
                    self.damaged = true;
                    self.unreadable += 1;
                }
            }
        }
        self.sequence = number;
        self.len = group.end;
    }
}

/// The frames of one commit.
struct Group {
    /// Of the last frame.
    place: Place,
    is_base: bool,
    entries: Vec<Entry>,
    end: u64,
}

impl Group {
    fn new(place: Place, entry: Entry, end: u64) -> Self {
        Self { place, is_base: entry == Entry::Base, entries: vec![entry], end }
    }

    /// False if the frame was there already.
    fn take(&mut self, place: Place, entry: Entry, end: u64) -> bool {
        let is_new = place.index > self.place.index;
        if is_new {
            (self.place, self.end) = (place, end);
            self.entries.push(entry);
        }
        is_new
    }

    fn is_whole(&self) -> bool {
        self.entries.len() == self.place.of as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::registry::store::{Change, frame};

    fn table() -> Vec<u8> {
        let mut bytes = frame::first_line().into_bytes();
        for group in 1..20 {
            let aliases = (0..3).map(|n| format!("a-{group}-{n}").parse().expect("an alias"));
            let changes: Vec<Change> = aliases.map(Change::Remove).collect();
            frame::append_group(&mut bytes, group, &changes).expect("fits");
        }
        bytes
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Content::read(&*bytes, 0).expect("memory can be read");
        }

        /// Bytes that are overwritten, left out or there twice.
        #[test]
        fn no_damage_of_the_middle_is_silent(from in 40_usize..1500, len in 1_usize..400, kind in 0..3) {
            let mut bytes = table();
            let to = (from + len).min(bytes.len() - 100);
            let part = bytes[from..to].to_vec();
            match kind {
                0 => bytes[from..to].iter_mut().for_each(|byte| *byte = !*byte),
                1 => drop(bytes.drain(from..to)),
                _ => drop(bytes.splice(from..from, part)),
            }
            let content = Content::read(&*bytes, 0).expect("memory can be read").expect("our format");
            prop_assert!(content.damaged);
            prop_assert_eq!(content.sequence, 19);
        }
    }
}
