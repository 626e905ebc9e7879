//! Leases in an embedded database (sled 0.34): one key per alias, in one tree.
//!
//! sled cuts its log at the first damaged byte and continues with what came before. Each commit therefore counts commits
//! and leases ([`Progress`]), and a [`Checkpoint`] beside the database records how far the database had come.

use std::{
    fmt,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    Change, Damage, Loaded, Store, StoreError,
    checkpoint::Checkpoint,
    progress::{PROGRESS_KEY, Progress, is_damaged},
    record,
};

/// Memory of sled's page cache. The registry keeps the whole table in memory, so the database needs little.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// How long to wait for a locked database. sled's own threads may keep the lock for a moment after its last handle.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Between attempts to lock.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Leases in a directory of their own. Losing the directory loses little: clients register again within a third of a lease.
pub(crate) struct SledStore {
    path: PathBuf,
    /// `None` after a failure: after an I/O error sled refuses everything until the database is opened again.
    open: Option<Open>,
    /// The checkpoint on disk, as far as this process knows.
    checkpoint: Option<Checkpoint>,
}

impl SledStore {
    /// Opens the database in the directory `path`, or creates it. Blocks: a quarter of a second with 100 000 aliases,
    /// and up to one second while another process has the database open.
    pub(crate) fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let open = Open::new(&path)?;
        Ok(Self { path, open: Some(open), checkpoint: None })
    }

    /// Detects lost leases. A loss is recorded in the checkpoint, so that each load reports it until clients had the
    /// time to register again; the database counts anew from the leases that are left.
    fn find_damage(&mut self, progress: Option<Progress>, found: u64) -> Option<Damage> {
        let read = Checkpoint::read(&Checkpoint::path(&self.path));
        let is_damaged = is_damaged(progress, found, &read);
        self.checkpoint = read.unwrap_or_default();
        if !is_damaged {
            return None;
        }
        let noted = self.checkpoint.map(|checkpoint| checkpoint.leases);
        let progress = Progress { leases: found, ..progress.unwrap_or_default() };
        if let Err(error) = self.record_damage(progress, noted.unwrap_or(found)) {
            tracing::warn!(error = &error as &dyn std::error::Error, "damage of the store could not be noted");
        }
        Some(Damage { noted, found })
    }

    fn record_damage(&mut self, progress: Progress, leases: u64) -> Result<(), StoreError> {
        self.write_checkpoint(Checkpoint { sequence: progress.sequence, leases, intact: false })?;
        self.with("written", |tree| {
            tree.insert(PROGRESS_KEY, &progress.encode())?;
            tree.flush().map(drop)
        })
    }

    fn write_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        if self.checkpoint != Some(checkpoint) {
            checkpoint.write(&Checkpoint::path(&self.path)).map_err(|error| self.backend("written", error))?;
            self.checkpoint = Some(checkpoint);
        }
        Ok(())
    }

    fn backend(&self, attempt: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::Backend { path: self.path.clone(), attempt, source: error.into() }
    }

    /// Runs `work` on the database. Opens the database first if the last work failed.
    fn with<T>(
        &mut self,
        attempt: &'static str,
        work: impl FnOnce(&sled::Tree) -> sled::Result<T>,
    ) -> Result<T, StoreError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => Open::new(&self.path)?,
        };
        let done = work(&open.leases).map_err(|error| store_error(&self.path, attempt, error))?;
        self.open = Some(open);
        Ok(done)
    }
}

/// Prints the path only: sled prints the whole database.
impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store for SledStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let (progress, mut loaded) = self.with("read", |tree| {
            let (mut progress, mut loaded) = (None, Loaded::default());
            for entry in tree {
                let (key, value) = entry?;
                if key == PROGRESS_KEY {
                    progress = Progress::decode(&value);
                    continue;
                }
                match record::decode(&key, &value) {
                    Ok(lease) => loaded.leases.push(lease),
                    Err(error) => {
                        let key = key.escape_ascii();
                        tracing::warn!(%key, error = &error as &dyn std::error::Error, "stored lease skipped");
                        loaded.unreadable += 1;
                    }
                }
            }
            Ok((progress, loaded))
        })?;
        let found = u64::try_from(loaded.leases.len()).unwrap_or(u64::MAX).saturating_add(loaded.unreadable);
        loaded.damage = self.find_damage(progress, found);
        Ok(loaded)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for change in changes {
            match change {
                Change::Put(lease) => {
                    let bytes = record::encode(lease).map_err(|error| self.backend("written", error))?;
                    batch.insert(lease.alias.as_str(), bytes);
                }
                Change::Remove(alias) => batch.remove(alias.as_str()),
            }
        }
        self.with("written", |tree| {
            let mut progress = Progress::of(tree)?;
            for change in changes {
                let had = tree.contains_key(change.alias().as_str())?;
                let has = matches!(change, Change::Put(_));
                progress.leases = progress.leases.saturating_add(has.into()).saturating_sub(had.into());
            }
            progress.sequence = progress.sequence.saturating_add(1);
            batch.insert(PROGRESS_KEY, &progress.encode());
            tree.apply_batch(batch)?;
            tree.flush().map(drop)
        })
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        let Progress { sequence, leases } = self.with("read", Progress::of)?;
        self.write_checkpoint(Checkpoint { sequence, leases, intact: true })
    }
}

struct Open {
    leases: sled::Tree,
    /// Keeps the database and its lock.
    _db: sled::Db,
}

impl Open {
    fn new(path: &Path) -> Result<Self, StoreError> {
        let give_up = Instant::now() + LOCK_PATIENCE;
        while is_locked(path) {
            if Instant::now() >= give_up {
                return Err(StoreError::Locked { path: path.into() });
            }
            thread::sleep(LOCK_RETRY);
        }
        // No flushes in the background: concurrent flushes can wait for one another for ever.
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let opened = config.open().and_then(|db| Ok(Self { leases: db.open_tree("leases")?, _db: db }));
        opened.map_err(|error| store_error(path, "opened", error))
    }
}

/// True while a process has the database open. sled reports a held lock as an I/O error of no particular kind, so the
/// lock that sled 0.34.7 takes, an exclusive one on its file `db`, is tried before.
fn is_locked(path: &Path) -> bool {
    let file = File::options().read(true).write(true).open(path.join("db"));
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn store_error(path: &Path, attempt: &'static str, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(io) => StoreError::Backend { path: path.into(), attempt, source: io.into() },
        other => StoreError::Damaged { path: path.into(), source: other.into() },
    }
}

#[cfg(test)]
mod tests;
