//! What is noted beside the database, and what need not be remembered in it any more.

use std::{io, time::SystemTime};

use super::{
    SledStore,
    anew::{DAMAGED, put_aside},
};
use crate::registry::{
    Name,
    store::{StoreError, checkpoint::Checkpoint, database, files, frame::Entry, noted},
};

/// Most removals that are kept.
pub(super) const MAX_REMOVALS: usize = 50_000;

impl SledStore {
    pub(super) fn write_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let check = self.beside(files::CHECK);
        if self.checkpoint != Some(checkpoint) || !check.is_file() {
            let placed = if check.is_dir() { put_aside(&check, DAMAGED) } else { Ok(()) };
            placed.and_then(|()| checkpoint.write(&check)).map_err(|error| self.error("written", error))?;
            self.checkpoint = Some(checkpoint);
        }
        Ok(())
    }

    /// Notes the aliases and beacons whose lease is running, or that stay.
    pub(super) fn note_names(&mut self, now: SystemTime) -> Result<(), StoreError> {
        let running = self.entries.iter().filter(|(_, stored)| match &stored.entry {
            Entry::Lease(lease) => lease.expires_at > now,
            Entry::Beacon(beacon) => beacon.expires_at.is_none_or(|end| end > now),
            Entry::Removed(_) | Entry::Unreadable => false,
        });
        let file = self.beside(files::NOTED);
        let placed = if file.is_dir() { put_aside(&file, DAMAGED) } else { Ok(()) };
        let last = self.noted.as_deref();
        let noted = placed.and_then(|()| noted::write(&file, self.id, running.map(|(name, _)| name), last));
        self.noted = Some(noted.map_err(|error| self.error("written", error))?);
        Ok(())
    }

    /// Drops removals of leases that are over anyway, and those that end first if there are too many.
    pub(super) fn forget_removals(&mut self, now: SystemTime) -> io::Result<()> {
        let removals = self.entries.iter().filter_map(|(name, stored)| match stored.entry {
            Entry::Removed(until) => Some((until, name)),
            _ => None,
        });
        let mut removals: Vec<_> = removals.collect();
        let has_ended = |removal: &(SystemTime, &Name)| removal.0 <= now;
        if let Some(too_many @ 1..) = removals.len().checked_sub(MAX_REMOVALS) {
            removals.sort_unstable();
            removals.truncate(removals.partition_point(has_ended).max(too_many));
        } else {
            removals.retain(has_ended);
        }
        let forgotten: Vec<_> = removals.into_iter().map(|(_, name)| name.clone()).collect();
        if let Some(database) = &self.database
            && !forgotten.is_empty()
        {
            let mut batch = ::sled::Batch::default();
            forgotten.iter().for_each(|name| batch.remove(database::key(name)));
            database.write(batch)?;
        }
        for name in &forgotten {
            self.entries.remove(name);
        }
        Ok(())
    }
}
