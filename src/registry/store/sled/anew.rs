//! A new database in place of one that is damaged, deleted, replaced, or of an earlier format.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{SledStore, Stored, folder};
use crate::registry::store::{
    StoreError,
    content::Content,
    database::{self, Database, LOG, MARK_KEY, is_there},
    files::beside,
    frame::{self, Place},
};

/// Names tried for a damaged table, of one second after the other.
const NAMES: u64 = 100;
/// The endings of what is kept: what was found so, and what was put in place while the table was in use.
pub(super) const DAMAGED: &str = "damaged";
const FOREIGN: &str = "foreign";
/// Entries that are written at once.
const CHUNK: usize = 4096;

impl SledStore {
    /// Writes a new database, and puts what is there aside.
    pub(super) fn write_anew(&mut self) -> Result<(), StoreError> {
        self.enter()?;
        if let Some(found) = self.found {
            self.write_checkpoint(found)?;
        }
        let (new, old) = (self.beside("new"), self.beside("old"));
        let failed = |error| self.error("written", error);
        [&new, &old].into_iter().try_for_each(|path| clear(path)).map_err(failed)?;
        let database = Database::open(&new, &mut Content::default()).map_err(|fault| fault.into_error(&self.path))?;
        self.write_all(&database).map_err(failed)?;
        drop(database);
        database::sync_directory(&new).map_err(failed)?;
        let log = File::open(new.join(LOG)).map_err(failed)?;
        self.make_room(&old)
            .and_then(|()| fs::rename(&new, &self.path))
            .and_then(|()| File::open(folder(&self.path))?.sync_all())
            .map_err(failed)?;
        (self.ours, self.found, self.is_void) = (Some(log), None, false);
        if let Err(error) = clear(&old) {
            tracing::warn!(%error, path = %old.display(), "the old table could not be removed");
        }
        self.open_again()
    }

    /// Writes the entries as two groups at most, none of which builds on earlier ones.
    fn write_all(&self, database: &Database) -> io::Result<()> {
        for group in [self.doubt, self.sequence].into_iter().filter(|group| *group > 0) {
            let is_last = group == self.sequence;
            let is_in = |stored: &Stored| (stored.group <= self.doubt) != is_last;
            let entries: Vec<_> = self.entries.iter().filter(|(_, stored)| is_in(stored)).collect();
            let of = u32::try_from(entries.len()).map_err(io::Error::other)? + u32::from(is_last);
            let place = |index| Place { group, index, of };
            for (chunk, index) in entries.chunks(CHUNK).zip((u32::from(is_last)..).step_by(CHUNK)) {
                let mut batch = ::sled::Batch::default();
                for ((name, stored), index) in chunk.iter().zip(index..) {
                    batch.insert(database::key(name), frame::entry(place(index), name, &stored.entry)?);
                }
                database.write(batch)?;
            }
            if is_last {
                let mut batch = ::sled::Batch::default();
                batch.insert(MARK_KEY, frame::mark(place(0), self.count, self.id)?);
                database.write(batch)?;
            }
        }
        Ok(())
    }

    /// Renames what is in place: to `old` only what this process has read or written as a whole.
    fn make_room(&self, old: &Path) -> io::Result<()> {
        match self.is_ours()? {
            is_ours if self.found.is_some() && (is_ours || self.ours.is_none()) => put_aside(&self.path, DAMAGED),
            true => fs::rename(&self.path, old),
            false => put_aside(&self.path, FOREIGN),
        }
    }
}

/// Keeps whatever has this name, if something does, under another that nothing has.
pub(super) fn put_aside(path: &Path, why: &str) -> io::Result<()> {
    if !is_there(path) {
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut names = (now..now + NAMES).map(|time| beside(path, &format!("{why}-{time}")));
    let name = names.find(|name| !is_there(name)).ok_or(io::ErrorKind::AlreadyExists)?;
    fs::rename(path, &name)?;
    let kept = name.display();
    match why {
        DAMAGED => tracing::error!(path = %kept, "the damaged table is kept"),
        _ => tracing::error!(
            path = %kept,
            "files that were put in place of the table in use are kept, and the table is written again: to use those, stop \
             this process, move them back, and the table's check file away"
        ),
    }
    Ok(())
}

/// Removes what an interrupted replacement has left, and puts aside what is no directory.
fn clear(left: &Path) -> io::Result<()> {
    match fs::symlink_metadata(left) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(left),
        _ => put_aside(left, FOREIGN),
    }
}
