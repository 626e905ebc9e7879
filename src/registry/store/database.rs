//! A directory of sled's (0.34): one key per name, and a mark, in one tree.
//!
//! sled flushes without an fsync, cuts its log at the first damaged byte, and panics over some others. So each commit is
//! synced here, and what panics while a database is opened and read is a [`Fault`].

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    StoreError,
    content::{Content, Mark, Stored},
    frame,
};
use crate::{registry::Name, telemetry::caught};

/// The file of sled's log.
pub(super) const LOG: &str = "db";
/// The directory of values that are too long for the log.
pub(super) const BLOBS: &str = "blobs";
/// The key of the mark. An alias has no zero byte.
pub(super) const MARK_KEY: &[u8] = b"\0mark";
/// What the key of a beacon begins with; no alias does.
const BEACON_KEY: u8 = 1;

/// Memory of sled's page cache. The store has all leases in memory, so the database needs little.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// How long to wait for a locked database. sled's own threads may keep the lock for a moment after its last handle.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Between attempts to lock.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// An open database.
pub(super) struct Database {
    leases: ::sled::Tree,
    /// Keeps the lock.
    _db: ::sled::Db,
    path: PathBuf,
    log: File,
    /// Blobs that are on disk.
    synced: BTreeSet<PathBuf>,
    is_new: bool,
}

/// Why there is no open database.
#[derive(Debug)]
pub(super) enum Fault {
    /// The files are not as they were written.
    Damaged(String),
    Failed(StoreError),
}

impl Fault {
    pub(super) fn into_error(self, path: &Path) -> StoreError {
        match self {
            Self::Failed(error) => error,
            Self::Damaged(message) => error(path, "read", io::Error::other(message)),
        }
    }
}

impl Database {
    /// Opens the database in this directory, or creates one, and reads it entry by entry: what came before a fault stands.
    pub(super) fn open(path: &Path, content: &mut Content) -> Result<Self, Fault> {
        let give_up = Instant::now() + LOCK_PATIENCE;
        while is_locked(path) {
            if Instant::now() >= give_up {
                return Err(Fault::Failed(StoreError::Locked { path: path.into() }));
            }
            thread::sleep(LOCK_RETRY);
        }
        check_kinds(path)?;
        let failed = |source| Fault::Failed(error(path, "opened", source));
        match caught(|| open_and_read(path, content)) {
            Ok(Ok((db, leases))) => {
                let log = File::open(path.join(LOG)).map_err(failed)?;
                Ok(Self { leases, _db: db, path: path.into(), log, synced: BTreeSet::new(), is_new: true })
            }
            Ok(Err(::sled::Error::Io(source))) => Err(failed(of_system(source))),
            Ok(Err(error)) => Err(Fault::Damaged(error.to_string())),
            Err(said) => Err(Fault::Damaged(format!("sled panicked: {said}"))),
        }
    }

    /// Another handle of its log. No other file has the same inode as long as it is open.
    pub(super) fn log(&self) -> io::Result<File> {
        self.log.try_clone()
    }

    /// Writes all of the batch or nothing.
    pub(super) fn write(&self, batch: ::sled::Batch) -> io::Result<()> {
        self.leases
            .apply_batch(batch)
            .and_then(|()| self.leases.flush())
            .map(drop)
            .map_err(|error| of_system(error.into()))
    }

    /// Returns once a power cut would not undo what was written.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.log.sync_data()?;
        let blobs = self.path.join(BLOBS);
        let there: BTreeSet<PathBuf> = files(&blobs)?.into_iter().collect();
        let mut new = there.difference(&self.synced).peekable();
        if new.peek().is_some() {
            new.try_for_each(|blob| sync_new(blob))?;
            File::open(&blobs)?.sync_all()?;
        }
        self.synced = there;
        if self.is_new {
            sync_directory(&self.path)?;
            self.is_new = false;
        }
        Ok(())
    }
}

/// Syncs all files of a database, and that they are there.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    for directory in [&path.join(BLOBS), path] {
        files(directory)?.iter().try_for_each(|file| sync_new(file))?;
        File::open(directory)?.sync_all()?;
    }
    File::open(path.join(".."))?.sync_all()
}

/// sled removes files meanwhile.
fn sync_new(file: &Path) -> io::Result<()> {
    match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        file => file?.sync_all(),
    }
}

/// The files of a directory, which need not exist.
pub(super) fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.is_file()).collect())
}

pub(super) fn error(path: &Path, attempt: &'static str, source: io::Error) -> StoreError {
    StoreError::Backend { path: path.into(), attempt, source }
}

/// The operating system's error, of which sled may have left the text alone.
fn of_system(error: io::Error) -> io::Error {
    let text = error.to_string();
    let code = text.strip_prefix("Os { code: ").and_then(|rest| rest.split(',').next()?.parse().ok());
    match code {
        Some(code) if error.raw_os_error().is_none() => io::Error::from_raw_os_error(code),
        _ => error,
    }
}

/// What has the name of a file of sled's and is none is damage, and may block who opens it.
fn check_kinds(path: &Path) -> Result<(), Fault> {
    let failed = |error| Fault::Failed(self::error(path, "read", error));
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_there(path) => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let file = entry.map_err(failed)?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let is_right = match (&*name, fs::metadata(&file)) {
            // A link to nothing.
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => false,
            (_, Err(error)) => return Err(failed(error)),
            (BLOBS, Ok(there)) => there.is_dir(),
            (LOG | "conf", Ok(there)) => there.is_file(),
            (other, Ok(there)) => !other.starts_with("snap.") || there.is_file(),
        };
        if !is_right {
            return Err(Fault::Damaged(format!("{} is another kind of file", file.display())));
        }
    }
    Ok(())
}

/// True if something has this name, a link to nothing included.
pub(super) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The log of the database in this directory, if it is a file, opened.
pub(super) fn open_log(path: &Path) -> Option<File> {
    let log = path.join(LOG);
    if log.is_file() { File::open(log).ok() } else { None }
}

/// True while a process has the database open. sled reports a held lock as an I/O error of no particular kind, so the
/// lock that sled 0.34.7 takes, an exclusive one on its log, is tried before.
fn is_locked(path: &Path) -> bool {
    let log = path.join(LOG);
    // Opening a FIFO would block.
    let file = log.is_file().then(|| File::options().read(true).write(true).open(log));
    file.and_then(Result::ok).is_some_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn open_and_read(path: &Path, content: &mut Content) -> ::sled::Result<(::sled::Db, ::sled::Tree)> {
    // No flushes in the background: concurrent flushes can wait for one another for ever.
    let db = ::sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
    let leases = db.open_tree("leases")?;
    for entry in &leases {
        let (key, value) = entry?;
        if let Some((place, body)) = frame::decode(&value) {
            content.take(place, body);
        } else if key == MARK_KEY {
            first_mark(&value).into_iter().for_each(|mark| content.see_mark(mark));
        } else if let Some(alias) = std::str::from_utf8(&key).ok().and_then(|text| text.parse().ok()) {
            content.put(Name::Alias(alias), Stored { group: 0, entry: frame::lease(&key, &value) });
        }
    }
    Ok((db, leases))
}

/// The key of what has this name.
pub(super) fn key(name: &Name) -> Vec<u8> {
    match name {
        Name::Alias(alias) => alias.as_str().as_bytes().to_vec(),
        Name::Beacon(name) => [&[BEACON_KEY][..], &name.encode()].concat(),
    }
}

/// The mark of format 1: commits so far, and leases.
fn first_mark(value: &[u8]) -> Option<Mark> {
    let (sequence, entries) = value.split_first_chunk()?;
    let (sequence, entries) = (u64::from_be_bytes(*sequence), u64::from_be_bytes(entries.try_into().ok()?));
    Some(Mark { format: 1, sequence, entries, id: None })
}
