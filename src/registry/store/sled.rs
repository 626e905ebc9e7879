//! Leases in an embedded database, sled.
//!
//! - `aliases`, a directory: sled's (`database`). Its values are frames (`frame`), synced before they are acknowledged.
//! - `aliases.check`: how far the table had come ([`Checkpoint`]); `aliases.noted`: its aliases ([`noted`](super::noted)).
//! - `aliases.damaged-<Unix time>`: a database that was found damaged, kept for a person. What could be read of it is in
//!   the new one. `aliases.foreign-<Unix time>`: what somebody put in its place while it was in use.
//! - `aliases.new`, `aliases.old`: while a new database replaces another.
//! - `lock` beside them: one process at a time.
//!
//! On a disk that is full or read-only the leases are read without sled, and each commit tries to open the database again.
//! The store keeps the leases that are on disk in memory, so a database that was deleted is written anew. Nothing is deleted
//! or written to that this process has not opened.

mod anew;
mod notes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Change, Damage, Loaded, Store, StoreError,
    checkpoint::Checkpoint,
    content::{Content, Stored},
    database::{self, Database, LOG, MARK_KEY},
    files::{self, Files},
    frame::{self, Entry, Place},
    noted,
};
use crate::{
    dir_lock::{DirLock, DirLockError, id},
    registry::{Foreign, Name},
};

/// How long after the end of a lease its removal is kept. A longer retention is not needed: a lease that comes back with
/// damage is in doubt.
const REMOVAL_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// The store of a scraper.
pub(crate) struct SledStore {
    /// The database's directory.
    path: PathBuf,
    /// The device of the directory above, once that is known.
    device: Option<u64>,
    /// The lock of that directory.
    lock: DirLock,
    /// The log of the database whose leases these are.
    ours: Option<File>,
    /// `None` after a failure: after an I/O error sled refuses everything until the database is opened again.
    database: Option<Database>,
    /// True if the database must be written anew before it is opened.
    is_void: bool,
    /// What is on disk; while a damaged database could not be replaced, what will be.
    entries: BTreeMap<Name, Stored>,
    /// Leases and beacons among the entries.
    count: u64,
    sequence: u64,
    /// The table, in its mark and in what is noted: that of another scraper has another.
    id: u64,
    /// The first line of the file of names, as far as this process knows.
    noted: Option<String>,
    /// Leases of this group and those before are in doubt.
    doubt: u64,
    /// The checkpoint on disk, as far as this process knows.
    checkpoint: Option<Checkpoint>,
    /// The damage to be noted, and the database to be put aside, before it is written anew.
    found: Option<Checkpoint>,
}

impl SledStore {
    /// The store of the directory `path` and the files `path.*`. Creates and locks the directory above. Succeeds on a
    /// disk that cannot be written.
    pub(crate) fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let mut store = Self {
            lock: DirLock::of(folder(&path)),
            path,
            device: None,
            ours: None,
            database: None,
            is_void: false,
            entries: BTreeMap::new(),
            count: 0,
            sequence: 0,
            id: rand::random(),
            noted: None,
            doubt: 0,
            checkpoint: None,
            found: None,
        };
        match store.enter() {
            // Rights do not come by themselves.
            Err(error) if error.may_pass() && !error.is_denied() => {}
            entered => entered?,
        }
        Ok(store)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        files::beside(&self.path, ending)
    }

    /// Makes the directory above if it is missing, and holds its lock. To be called before anything is written.
    fn enter(&mut self) -> Result<(), StoreError> {
        let folder = folder(&self.path);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder).and_then(|()| fs::metadata(folder));
        let device = made.map_err(|error| self.error("opened", error))?.dev();
        if *self.device.get_or_insert(device) != device {
            // What is stored on another file system is not there any more when this one is mounted again.
            return Err(StoreError::Gone { path: self.path.clone() });
        }
        self.lock.hold().map_err(|error| match error {
            DirLockError::InUse => StoreError::Locked { path: self.path.clone() },
            DirLockError::Failed(error) => database::error(self.lock.path(), "written", error),
        })
    }

    /// True if the database in place is the one whose leases these are.
    fn is_ours(&self) -> io::Result<bool> {
        let Some(ours) = &self.ours else { return Ok(false) };
        match fs::metadata(self.path.join(LOG)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            there => Ok(id(&there?) == id(&ours.metadata()?)),
        }
    }

    fn use_database(&mut self, database: Database) -> io::Result<()> {
        self.ours = Some(database.log()?);
        self.database = Some(database);
        Ok(())
    }

    /// Ends the replacement of the database by a new one, of which a process was killed.
    fn take_new(&self) -> io::Result<()> {
        let new = self.beside("new");
        if new.exists() && !self.path.exists() { fs::rename(&new, &self.path) } else { Ok(()) }
    }

    /// Takes over what is left of a damaged table, with new numbers: what is in doubt in one group, what is certain in
    /// the next. A beacon in doubt that was there at the checkpoint is among its `names`, or was unregistered.
    fn take_over(&mut self, content: Content, doubt: u64, noted: Option<Checkpoint>, names: Option<&BTreeSet<Name>>) {
        let noted_to = noted.unwrap_or_default().sequence;
        let base = content.last_group().max(noted_to) + 1;
        let was_removed = |name: &Name, stored: &Stored| {
            matches!(name, Name::Beacon(_))
                && stored.group <= doubt.min(noted_to)
                && names.is_some_and(|names| !names.contains(name))
        };
        let readable = content.entries.into_iter().filter(|(_, stored)| stored.entry != Entry::Unreadable);
        let numbered = readable.filter(|(name, stored)| !was_removed(name, stored)).map(|(name, stored)| {
            let group = if stored.group <= doubt { base } else { base + 1 };
            (name, Stored { group, ..stored })
        });
        self.entries = numbered.collect();
        self.count = self.entries.keys().filter(|name| self.has(name)).count() as u64;
        self.sequence = base + 1;
        self.doubt = if doubt > 0 { base } else { 0 };
        let entries = noted.map_or(self.count, |noted| noted.entries);
        self.found = Some(Checkpoint { id: Some(self.id), sequence: self.sequence, entries, doubt: Some(self.doubt) });
        self.is_void = true;
    }

    /// Makes the store ready for a commit.
    fn prepare(&mut self) -> Result<(), StoreError> {
        match &self.database {
            None if self.is_void => self.write_anew(),
            None => self.open_again(),
            Some(_) if self.is_ours().map_err(|error| self.error("written", error))? => self.enter(),
            Some(_) => {
                (self.database, self.ours, self.is_void) = (None, None, true);
                (self.checkpoint, self.noted) = (None, None);
                self.enter()?;
                Err(StoreError::Gone { path: self.path.clone() })
            }
        }
    }

    /// Opens the database after a failure. One that has not what is in memory is to be written anew.
    fn open_again(&mut self) -> Result<(), StoreError> {
        self.enter()?;
        let is_ours = self.take_new().and_then(|()| self.is_ours());
        if !is_ours.map_err(|error| self.error("opened", error))? && self.ours.is_some() {
            self.is_void = true;
            return self.write_anew();
        }
        let mut content = Content::default();
        let opened = Database::open(&self.path, &mut content);
        let mark = content.mark.unwrap_or_default();
        // The group that failed may be there: its changes are repeated.
        let is_ours = match mark.sequence.checked_sub(self.sequence) {
            Some(0) => mark.entries == self.count,
            ahead => ahead == Some(1),
        };
        match opened {
            Ok(database) if is_ours => {
                self.use_database(database).map_err(|error| self.error("opened", error))?;
            }
            Err(database::Fault::Failed(error)) => return Err(error),
            Ok(_) | Err(database::Fault::Damaged(_)) => {
                self.is_void = true;
                return self.write_anew();
            }
        }
        Ok(())
    }

    /// The entry that the change leaves.
    fn entry(&self, change: &Change) -> Entry {
        match change {
            Change::Put(lease) => Entry::Lease(Arc::clone(lease)),
            Change::PutBeacon(beacon) => Entry::Beacon(Arc::clone(beacon)),
            Change::Remove(_) | Change::RemoveBeacon(_) => {
                Entry::Removed(match self.entries.get(&change.name()).map(|stored| &stored.entry) {
                    Some(Entry::Lease(lease)) => lease.expires_at.checked_add(REMOVAL_LIFE).unwrap_or(lease.expires_at),
                    Some(Entry::Beacon(_)) => SystemTime::now() + REMOVAL_LIFE,
                    Some(Entry::Removed(until)) => *until,
                    _ => SystemTime::now(),
                })
            }
        }
    }

    fn has(&self, name: &Name) -> bool {
        self.entries.get(name).is_some_and(|stored| matches!(stored.entry, Entry::Lease(_) | Entry::Beacon(_)))
    }

    fn error(&self, attempt: &'static str, source: io::Error) -> StoreError {
        database::error(&self.path, attempt, source)
    }
}

/// The directory above a table.
fn folder(table: &Path) -> &Path {
    table.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store for SledStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.database = None;
        let taken = self.take_new();
        let place = if taken.is_ok() { self.path.clone() } else { self.beside("new") };
        let mut files = Files::read(&place, &self.beside(files::CHECK))?;
        if let Err(error) = taken {
            files.failure = Some(self.error("opened", error));
        }
        let lost_leases = files.lost_leases();
        let Files { content, database, log, mut failure, noted, is_check_damaged, is_damaged, is_former, doubt } =
            files;
        (self.checkpoint, self.ours) = (noted, log);
        let mark = content.mark.unwrap_or_default();
        self.id = noted.and_then(|noted| noted.id).or(mark.id).unwrap_or(self.id);
        let unreadable = content.unreadable();
        let names =
            lost_leases.then(|| noted::read(&self.beside(files::NOTED), noted.and_then(|noted| noted.id))).flatten();
        if is_damaged {
            self.take_over(content, doubt, noted, names.as_ref());
        } else {
            self.count = content.count();
            self.sequence = mark.sequence.max(is_former.into());
            self.entries = content.entries;
            if is_former {
                self.entries.values_mut().for_each(|stored| stored.group = self.sequence);
            }
            (self.doubt, self.is_void) = (doubt, is_former);
            if let Some(database) = database.filter(|_| !is_former && failure.is_none()) {
                self.use_database(database).map_err(|error| self.error("opened", error))?;
            }
        }
        let repaired = match failure {
            None if self.is_void => self.write_anew(),
            None if is_check_damaged => self.checkpoint(),
            _ => Ok(()),
        };
        match repaired {
            Err(error @ StoreError::Locked { .. }) => return Err(error),
            Err(error) => failure = Some(error),
            Ok(()) => {}
        }

        let damage =
            lost_leases.then(|| Damage { noted: noted.map(|noted| noted.entries), found: self.count, awaited: names });
        let mut loaded = Loaded { unreadable, damage, failure, ..Loaded::default() };
        for Stored { group, entry } in self.entries.values() {
            let is_in_doubt = *group <= self.doubt;
            match entry {
                Entry::Lease(lease) => {
                    loaded.contents.leases.push(Arc::clone(lease));
                    loaded.unconfirmed.extend(is_in_doubt.then(|| lease.alias.clone()));
                }
                Entry::Beacon(beacon) => {
                    loaded.contents.beacons.push(Arc::clone(beacon));
                    loaded.unconfirmed_beacons.extend(is_in_doubt.then(|| beacon.name.clone()));
                }
                Entry::Removed(_) | Entry::Unreadable => {}
            }
        }
        Ok(loaded)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<Vec<Foreign>, StoreError> {
        self.prepare()?;
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let group = self.sequence + 1;
        let failed = |error| database::error(&self.path, "written", error);
        let of = u32::try_from(changes.len() + 1).map_err(|error| failed(io::Error::other(error)))?;
        let mut batch = ::sled::Batch::default();
        let (mut count, mut written) = (self.count, Vec::with_capacity(changes.len()));
        for (change, index) in changes.iter().zip(1..) {
            let (name, entry) = (change.name(), self.entry(change));
            count += u64::from(!matches!(entry, Entry::Removed(_)));
            count -= u64::from(self.has(&name));
            batch
                .insert(database::key(&name), frame::entry(Place { group, index, of }, &name, &entry).map_err(failed)?);
            written.push((name, Stored { group, entry }));
        }
        batch.insert(MARK_KEY, frame::mark(Place { group, index: 0, of }, count, self.id).map_err(failed)?);
        // What fails or panics below leaves no open database.
        let Some(mut database) = self.database.take() else { return Err(StoreError::Gone { path: self.path.clone() }) };
        database.write(batch).map_err(failed)?;
        if let Err(error) = database.sync() {
            // The kernel takes pages for written that are not.
            self.is_void = true;
            return Err(self.error("written", error));
        }
        self.database = Some(database);
        (self.sequence, self.count) = (group, count);
        self.entries.extend(written);
        Ok(Vec::new())
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        let now = SystemTime::now();
        self.note_names(now)?;
        self.write_checkpoint(Checkpoint {
            id: Some(self.id),
            sequence: self.sequence,
            entries: self.count,
            doubt: None,
        })?;
        self.doubt = 0;
        self.forget_removals(now).map_err(|error| self.error("written", error))
    }
}

#[cfg(test)]
mod tests;
