//! The lock of a directory that one process at a time may use.
//!
//! A file named `lock` in it. The kernel releases the lock with its holder, also after `kill -9`. Whoever deletes the file, or
//! the directory, lets the next process in: a holder looks again before it writes there ([`DirLock::hold`]).

use std::{
    fs::{self, File, Metadata, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// The locked file of a directory.
pub(crate) const LOCK: &str = "lock";

/// How often a file is locked that somebody deletes meanwhile.
const ATTEMPTS: usize = 3;

/// The lock of a directory, held as long as this value lives, once [`hold`](Self::hold) has succeeded.
#[derive(Debug)]
pub(crate) struct DirLock {
    path: PathBuf,
    held: Option<File>,
}

/// Why a directory is not ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirLockError {
    #[error("another process has locked it")]
    InUse,
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl DirLock {
    /// The lock of the directory, not held yet.
    pub(crate) fn of(directory: &Path) -> Self {
        Self { path: directory.join(LOCK), held: None }
    }

    /// The file of the lock.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock, and takes it again if its file was deleted or replaced.
    ///
    /// # Errors
    /// Another process has it, or the file can neither be made nor opened.
    pub(crate) fn hold(&mut self) -> Result<(), DirLockError> {
        for _ in 0..ATTEMPTS {
            let there = fs::metadata(&self.path).ok().as_ref().map(id);
            let held = self.held.as_ref().map(File::metadata).transpose()?.as_ref().map(id);
            if held.is_some() && held == there {
                return Ok(());
            }
            let file = self.open()?;
            match file.try_lock() {
                Ok(()) => self.held = Some(file),
                Err(TryLockError::WouldBlock) => return Err(DirLockError::InUse),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        Err(io::Error::from(io::ErrorKind::NotFound).into())
    }

    /// A disk that is read-only or full holds nobody up, if the file is there. Whatever it is, opening it does not block.
    fn open(&self) -> io::Result<File> {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let open =
            |write: bool| File::options().read(!write).write(write).create(write).custom_flags(flags).open(&self.path);
        open(true).or_else(|error| open(false).map_err(|_| error))
    }
}

/// The device and the inode.
pub(crate) fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_taken_again_when_its_file_was_deleted() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut first, mut second) = (DirLock::of(dir.path()), DirLock::of(dir.path()));
        first.hold().expect("free");
        assert!(matches!(second.hold(), Err(DirLockError::InUse)));
        fs::remove_file(first.path()).expect("removed");
        first.hold().expect("taken again");
        assert!(matches!(second.hold(), Err(DirLockError::InUse)));
        fs::remove_file(first.path()).expect("removed");
        second.hold().expect("another file");
        assert!(matches!(first.hold(), Err(DirLockError::InUse)), "the first has lost it");
        drop(second);
        first.hold().expect("free again");
    }
}
