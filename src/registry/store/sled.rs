//! Leases in an embedded database (sled 0.34): one key per alias, in one tree.
//!
//! sled cuts its log at the first damaged byte and goes on with what came before. So each commit also counts itself and
//! the leases, under a key that is no alias; and a [`Witness`] beside the database remembers how far it had come.

use std::{
    fmt,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    Change, Damage, Loaded, Store, StoreError,
    mark::{MARK, Mark, is_damaged},
    record,
    witness::Witness,
};

/// Memory of sled's page cache. The registry keeps the whole table in memory, so the database needs little.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// How long to wait for a locked database. sled's own threads may keep the lock for a moment after its last handle.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Leases in a directory of their own.
///
/// What was committed survives a `kill -9`. Losing the whole directory loses little: clients register again within a
/// third of a lease.
pub struct SledStore {
    path: PathBuf,
    /// `None` after a failure: sled refuses everything after an I/O error until it is opened anew.
    open: Option<Open>,
    /// The witness that is on disk, as far as we know.
    witness: Option<Witness>,
}

impl SledStore {
    /// Opens the database in the directory `path`, or creates it. Blocks: a quarter of a second with 100 000 aliases,
    /// and up to one second while another has it open.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Damaged`], or [`StoreError::Backend`] for what the file system says.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let open = Open::new(&path)?;
        Ok(Self { path, open: Some(open), witness: None })
    }

    /// Whether the database was more than it is. If so, that is noted for the next load, as this one cannot tell what
    /// comes back; and the count starts anew from what there is.
    fn examine(&mut self, mark: Option<Mark>, found: u64) -> Option<Damage> {
        let read = Witness::read(&Witness::path(&self.path));
        let is_damaged = is_damaged(mark, found, &read);
        self.witness = read.unwrap_or_default();
        if !is_damaged {
            return None;
        }
        let noted = self.witness.map(|witness| witness.leases);
        let mark = Mark { leases: found, ..mark.unwrap_or_default() };
        if let Err(error) = self.note_damage(mark, noted.unwrap_or(found)) {
            tracing::warn!(error = &error as &dyn std::error::Error, "damage of the store could not be noted");
        }
        Some(Damage { noted, found })
    }

    fn note_damage(&mut self, mark: Mark, leases: u64) -> Result<(), StoreError> {
        self.testify(Witness { sequence: mark.sequence, leases, whole: false })?;
        self.with("written", |tree| {
            tree.insert(MARK, &mark.encode())?;
            tree.flush().map(drop)
        })
    }

    fn testify(&mut self, witness: Witness) -> Result<(), StoreError> {
        if self.witness != Some(witness) {
            witness.write(&Witness::path(&self.path)).map_err(|error| self.backend("written", error))?;
            self.witness = Some(witness);
        }
        Ok(())
    }

    fn backend(&self, attempt: &'static str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::Backend { place: self.path.display().to_string(), attempt, source: error.into() }
    }

    /// Runs `work` on the database, opening it first if the last work failed.
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

/// The path only: sled's own form is the whole database.
impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store for SledStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let (mark, mut loaded) = self.with("read", |tree| {
            let (mut mark, mut loaded) = (None, Loaded::default());
            for entry in tree {
                let (key, value) = entry?;
                if key == MARK {
                    mark = Mark::decode(&value);
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
            Ok((mark, loaded))
        })?;
        let found = u64::try_from(loaded.leases.len()).unwrap_or(u64::MAX).saturating_add(loaded.unreadable);
        loaded.damage = self.examine(mark, found);
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
            let mut mark = Mark::of(tree)?;
            for change in changes {
                let had = tree.contains_key(change.alias().as_str())?;
                let has = matches!(change, Change::Put(_));
                mark.leases = mark.leases.saturating_add(has.into()).saturating_sub(had.into());
            }
            mark.sequence = mark.sequence.saturating_add(1);
            batch.insert(MARK, &mark.encode());
            tree.apply_batch(batch)?;
            tree.flush().map(drop)
        })
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        let Mark { sequence, leases } = self.with("read", Mark::of)?;
        self.testify(Witness { sequence, leases, whole: true })
    }
}

struct Open {
    leases: sled::Tree,
    /// Keeps the database, and the lock on its directory.
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
        // No flushing in the background: flushes that meet can wait for one another for ever.
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
        sled::Error::Io(io) => StoreError::Backend { place: path.display().to_string(), attempt, source: io.into() },
        other => StoreError::Damaged { path: path.into(), source: other.into() },
    }
}

#[cfg(test)]
mod tests;
