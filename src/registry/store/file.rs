//! The table's file while it is written: appended to, synced, replaced.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use super::{Change, frame};
use crate::atomic_file;

/// A file of this length is not rewritten for its length.
const SMALL: u64 = 1024 * 1024;
/// The file is rewritten once it is so many times as long as after the last time.
const OVERGROWN: u64 = 4;

#[derive(Debug)]
pub(super) struct TableFile {
    file: File,
    /// Up to here all is on disk.
    len: u64,
    /// The length when the file was written as a whole, or opened.
    base_len: u64,
    /// True if there are bytes after `len`, which nobody was told of.
    is_torn: bool,
}

/// What to do after a failed append.
#[derive(Debug)]
pub(super) enum AppendError {
    /// Append again.
    Write(io::Error),
    /// Write the whole file anew: after a failed sync the kernel takes pages for written that are not.
    Sync(io::Error),
}

/// A group of leases or changes for a new file.
pub(super) struct NewGroup<C> {
    pub(super) number: u64,
    pub(super) changes: C,
}

impl TableFile {
    /// Opens the file, of which `len` bytes count.
    pub(super) fn open(path: &Path, len: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let is_torn = file.metadata()?.len() != len;
        Ok(Self { file, len, base_len: len, is_torn })
    }

    /// Replaces the file at `path` by one of these groups, none of which builds on the ones before.
    pub(super) fn replace<C>(path: &Path, groups: impl IntoIterator<Item = NewGroup<C>>) -> io::Result<Self>
    where
        C: ExactSizeIterator<Item = Change>,
    {
        let mut len = 0;
        atomic_file::replace_with(path, atomic_file::PRIVATE, |file| {
            let mut to = BufWriter::new(file);
            let mut put = |bytes: &[u8]| {
                len += bytes.len() as u64;
                to.write_all(bytes)
            };
            put(frame::first_line().as_bytes())?;
            let mut bytes = Vec::new();
            for NewGroup { number, changes } in groups {
                let of = u32::try_from(changes.len() + 1).map_err(io::Error::other)?;
                for (index, change) in (0..of).zip(std::iter::once(None).chain(changes.map(Some))) {
                    bytes.clear();
                    frame::append(&mut bytes, frame::Place { group: number, index, of }, change.as_ref())?;
                    put(&bytes)?;
                }
            }
            to.flush()
        })?;
        Self::open(path, len)
    }

    /// True if the file is still the one at `path`.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        let there = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            there => there?,
        };
        let ours = self.file.metadata()?;
        Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino()))
    }

    /// Appends the bytes, and returns once a power cut would not undo that.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        if self.is_torn {
            self.file.set_len(self.len).map_err(AppendError::Write)?;
        }
        self.is_torn = true;
        self.file.write_all_at(bytes, self.len).map_err(AppendError::Write)?;
        self.file.sync_data().map_err(AppendError::Sync)?;
        self.is_torn = false;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// True if most of the file is of the past.
    pub(super) fn is_overgrown(&self) -> bool {
        self.len > SMALL && self.len / OVERGROWN > self.base_len
    }

    /// The length was not worth a rewrite, or the rewrite failed: a later one is.
    pub(super) fn grow_on(&mut self) {
        self.base_len = self.len;
    }
}
