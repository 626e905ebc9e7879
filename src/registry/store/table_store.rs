//! Leases in one file, to which changes are appended.
//!
//! - `aliases.table`: the changes (`frame`), synced before they are acknowledged. Once most of the file is of the past,
//!   a new one of the leases alone replaces it.
//! - `aliases.check`: how far the table had come ([`Checkpoint`]).
//! - `aliases.lock`: locked as long as the store is open.
//! - `aliases.damaged-<Unix time>`: a table that was found damaged, kept for a person. What could be read of it is in the
//!   new table.
//! - `aliases`, a directory: the table of an earlier version (`former`), renamed `aliases.former` once taken over.
//!
//! Reading needs no space and no right to write: on a disk that is full or read-only the leases are loaded, and each
//! commit tries again. The store keeps the leases that are on disk in memory, so a file that was deleted is written anew.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Change, Damage, Loaded, Store, StoreError,
    checkpoint::Checkpoint,
    content::{Content, Stored},
    file::{AppendError, NewGroup, TableFile},
    files::{self, Files},
    frame,
};
use crate::wire::Alias;

/// Names tried for a damaged table, of one second after the other.
const NAMES: u64 = 100;

/// The store of a scraper.
pub(crate) struct TableStore {
    /// The files' path without an ending.
    path: PathBuf,
    /// The device of the files' directory.
    device: u64,
    /// `None` while the lock cannot be written.
    lock: Option<File>,
    /// `None` while the file must be written anew.
    file: Option<TableFile>,
    /// What is on disk; while a damaged file could not be replaced, what will be.
    leases: BTreeMap<Alias, Stored>,
    sequence: u64,
    /// Leases of this group and those before are in doubt.
    doubt: u64,
    /// The checkpoint on disk, as far as this process knows.
    checkpoint: Option<Checkpoint>,
    /// The damage to be noted, and the file to be put aside, before the file is written anew.
    found: Option<Checkpoint>,
    /// True if the leases come from a table of an earlier version, which is still in its place.
    is_former: bool,
}

impl TableStore {
    /// Locks the store of the files `path.*`, and creates their directory. Succeeds on a disk that cannot be written.
    pub(crate) fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let mut store = Self {
            path: path.into(),
            device: 0,
            lock: None,
            file: None,
            leases: BTreeMap::new(),
            sequence: 0,
            doubt: 0,
            checkpoint: None,
            found: None,
            is_former: false,
        };
        let opened = store.make_folder().and_then(|device| {
            store.device = device;
            store.take_lock()
        });
        match opened {
            Err(error) if !error.may_pass() => Err(error),
            _ => Ok(store),
        }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        files::beside(&self.path, ending)
    }

    fn table(&self) -> PathBuf {
        self.beside(files::TABLE)
    }

    /// Makes the directory if it is missing, and returns its device.
    fn make_folder(&self) -> Result<u64, StoreError> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        let device = made.and_then(|()| fs::metadata(folder)).map_err(|error| self.error("opened", error))?.dev();
        Ok(device)
    }

    fn take_lock(&mut self) -> Result<(), StoreError> {
        let path = self.beside("lock");
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        // A lock needs no right to write.
        let file = open.or_else(|error| File::open(&path).map_err(|_| error));
        let file = file.map_err(|error| self.error("opened", error))?;
        match file.try_lock() {
            Ok(()) => self.lock = Some(file),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: self.path.clone() }),
            Err(TryLockError::Error(error)) => return Err(self.error("opened", error)),
        }
        Ok(())
    }

    /// Takes over what is left of a damaged table, with new numbers: what is in doubt in one group, what is certain in
    /// the next.
    fn take_over(&mut self, content: Content, noted: Option<Checkpoint>) {
        let base = content.sequence.max(noted.unwrap_or_default().sequence) + 1;
        let doubt = content.doubt;
        let leases = content.leases.into_iter().map(|(alias, stored)| {
            let group = if stored.group <= doubt { base } else { base + 1 };
            (alias, Stored { group, ..stored })
        });
        self.leases = leases.collect();
        self.sequence = base + 1;
        self.doubt = if doubt > 0 { base } else { 0 };
        let leases = noted.map_or(self.leases.len() as u64, |noted| noted.leases);
        self.found = Some(Checkpoint { sequence: self.sequence, leases, doubt: Some(self.doubt) });
    }

    /// Makes the store ready for appends.
    fn prepare(&mut self) -> Result<(), StoreError> {
        match &self.file {
            None => self.rewrite(),
            Some(file) if file.is_at(&self.table()).map_err(|error| self.error("written", error))? => Ok(()),
            Some(_) => {
                (self.file, self.lock, self.checkpoint) = (None, None, None);
                Err(StoreError::Gone { path: self.table() })
            }
        }
    }

    /// Writes the whole file anew. A file that is damaged is put aside first.
    fn rewrite(&mut self) -> Result<(), StoreError> {
        if self.make_folder()? != self.device {
            // What is stored on another file system is not there any more when this one is mounted again.
            return Err(StoreError::Gone { path: self.table() });
        }
        if self.lock.is_none() {
            self.take_lock()?;
        }
        if let Some(found) = self.found {
            self.write_checkpoint(found)?;
            self.keep_damaged(|name| fs::hard_link(self.table(), name).or_else(|_| copy_new(&self.table(), name)))?;
        }
        let groups = [self.doubt, self.sequence].into_iter().filter(|group| *group > 0).map(|number| {
            let is_in_doubt = number <= self.doubt;
            let leases = self.leases.values().filter(|stored| (stored.group <= self.doubt) == is_in_doubt);
            let changes: Vec<Change> = leases.map(|stored| Change::Put(Arc::clone(&stored.lease))).collect();
            NewGroup { number, changes: changes.into_iter() }
        });
        let file = TableFile::replace(&self.table(), groups).map_err(|error| self.error("written", error))?;
        if self.is_former {
            match self.found {
                Some(_) => self.keep_damaged(|name| fs::rename(&self.path, name))?,
                None => {
                    let to = self.beside("former");
                    fs::rename(&self.path, &to).map_err(|error| self.error("written", error))?;
                    tracing::info!(kept = %to.display(), "the table of an earlier version was taken over");
                }
            }
        }
        (self.is_former, self.found, self.file) = (false, None, Some(file));
        Ok(())
    }

    /// Keeps the damaged table under a name that nothing has.
    fn keep_damaged(&self, keep: impl Fn(&Path) -> io::Result<()>) -> Result<(), StoreError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        for time in now..now + NAMES {
            let name = self.beside(&format!("damaged-{time}"));
            if name.exists() {
                continue;
            }
            return match keep(&name) {
                // There is nothing to keep.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(self.error("written", error)),
                Ok(()) => {
                    tracing::error!(path = %name.display(), "the damaged table is kept");
                    Ok(())
                }
            };
        }
        Ok(())
    }

    fn write_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        if self.checkpoint != Some(checkpoint) {
            checkpoint.write(&self.beside(files::CHECK)).map_err(|error| self.error("written", error))?;
            self.checkpoint = Some(checkpoint);
        }
        Ok(())
    }

    fn error(&self, attempt: &'static str, source: io::Error) -> StoreError {
        StoreError::Backend { path: self.path.clone(), attempt, source }
    }
}

impl fmt::Debug for TableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store for TableStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let files = Files::read(&self.path)?;
        let lost_leases = files.is_damaged();
        let Files { content, noted, is_check_damaged, is_new, is_former } = files;
        (self.checkpoint, self.is_former) = (noted, is_former);
        let (unreadable, is_damaged, len) = (content.unreadable, content.damaged, content.len);
        if is_damaged {
            self.take_over(content, noted);
        } else {
            self.sequence = content.sequence.max(1);
            self.doubt = content.doubt;
            self.leases = content.leases;
        }

        let prepared = if is_new || is_damaged {
            self.rewrite()
        } else {
            let opened = if self.lock.is_some() { Ok(()) } else { self.take_lock() };
            opened.and_then(|()| {
                let file = TableFile::open(&self.table(), len).map_err(|error| self.error("opened", error))?;
                self.file = Some(file);
                Ok(())
            })
        };
        let prepared = prepared.and_then(|()| if is_check_damaged && !is_damaged { self.checkpoint() } else { Ok(()) });
        let failure = match prepared {
            Ok(()) => None,
            Err(error) if error.may_pass() => Some(error),
            Err(error) => return Err(error),
        };

        let found = self.leases.len() as u64;
        let damage = lost_leases.then(|| Damage { noted: noted.map(|noted| noted.leases), found });
        let in_doubt = self.leases.values().filter(|stored| stored.group <= self.doubt);
        let unconfirmed = in_doubt.map(|stored| stored.lease.alias.clone()).collect();
        let leases = self.leases.values().map(|stored| Arc::clone(&stored.lease)).collect();
        Ok(Loaded { leases, unconfirmed, unreadable, damage, failure })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.prepare()?;
        if changes.is_empty() {
            return Ok(());
        }
        let group = self.sequence + 1;
        let mut bytes = Vec::new();
        frame::append_group(&mut bytes, group, changes).map_err(|error| self.error("written", error))?;
        // A panic below leaves no file, and so a new one.
        let Some(mut file) = self.file.take() else { return Err(StoreError::Gone { path: self.table() }) };
        match file.append(&bytes) {
            Err(AppendError::Write(error)) => {
                self.file = Some(file);
                return Err(self.error("written", error));
            }
            Err(AppendError::Sync(error)) => return Err(self.error("written", error)),
            Ok(()) => {}
        }
        self.sequence = group;
        for change in changes {
            match change {
                Change::Put(lease) => {
                    self.leases.insert(lease.alias.clone(), Stored { group, lease: Arc::clone(lease) });
                }
                Change::Remove(alias) => {
                    self.leases.remove(alias);
                }
            }
        }
        let is_overgrown = file.is_overgrown();
        self.file = Some(file);
        if is_overgrown && let Err(error) = self.rewrite() {
            tracing::warn!(error = &error as &dyn std::error::Error, "the table's file could not be made shorter");
            self.file.iter_mut().for_each(TableFile::grow_on);
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.write_checkpoint(Checkpoint { sequence: self.sequence, leases: self.leases.len() as u64, doubt: None })?;
        self.doubt = 0;
        Ok(())
    }
}

fn copy_new(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

#[cfg(test)]
mod tests;
