//! A new database in place of one that is damaged, deleted, or of an earlier format.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{SledStore, Stored};
use crate::registry::store::{
    StoreError,
    content::Content,
    database::{self, Database, MARK_KEY},
    frame::{self, Place},
};

/// Names tried for a damaged table, of one second after the other.
const NAMES: u64 = 100;
/// Entries that are written at once.
const CHUNK: usize = 4096;

impl SledStore {
    /// Writes a new database, and puts the one that is there aside.
    pub(super) fn write_anew(&mut self) -> Result<(), StoreError> {
        if self.make_folder()? != self.device {
            // What is stored on another file system is not there any more when this one is mounted again.
            return Err(StoreError::Gone { path: self.path.clone() });
        }
        if let Some(found) = self.found {
            self.write_checkpoint(found)?;
        }
        let (new, old) = (self.beside("new"), self.beside("old"));
        let failed = |error| self.error("written", error);
        [&new, &old].into_iter().try_for_each(|path| remove(path)).map_err(failed)?;
        let database = Database::open(&new, &mut Content::default()).map_err(|fault| fault.into_error(&self.path))?;
        self.write_all(&database).map_err(failed)?;
        drop(database);
        database::sync_directory(&new).map_err(failed)?;
        match self.found {
            Some(_) => self.keep_damaged(),
            None => rename(&self.path, &old),
        }
        .and_then(|()| rename(&new, &self.path))
        .and_then(|()| File::open(self.folder())?.sync_all())
        .map_err(failed)?;
        (self.found, self.is_void) = (None, false);
        if let Err(error) = remove(&old) {
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
                for ((alias, stored), index) in chunk.iter().zip(index..) {
                    batch.insert(alias.as_str(), frame::entry(place(index), alias, &stored.entry)?);
                }
                database.write(batch)?;
            }
            if is_last {
                let mut batch = ::sled::Batch::default();
                batch.insert(MARK_KEY, frame::mark(place(0), self.leases)?);
                database.write(batch)?;
            }
        }
        Ok(())
    }

    /// Keeps the damaged database under a name that nothing has.
    fn keep_damaged(&self) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut names = (now..now + NAMES).map(|time| self.beside(&format!("damaged-{time}")));
        let name = names.find(|name| !name.exists()).ok_or(io::ErrorKind::AlreadyExists)?;
        rename(&self.path, &name)?;
        if name.exists() {
            tracing::error!(path = %name.display(), "the damaged table is kept");
        }
        Ok(())
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !from.exists() => Ok(()),
        renamed => renamed,
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
