//! The ids of all secrets that a scraper has known, on the disk: what was registered with one that is gone can be told from what
//! was registered elsewhere, as in a table that several scrapers share, or that was imported. Also after a start: a secret ends
//! when its file is taken out of the configuration, and a crash may come between the end of a ticket and its release.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::{atomic_file, identity::SecretId, small_file};

/// The file's name in the data directory: an id a line.
pub(super) const SECRET_IDS: &str = "secret-ids";
/// Most bytes of the file: many times what a scraper may have of tickets.
const MAX_LEN: u64 = 64 << 20;

/// The file.
#[derive(Clone, Debug)]
pub(super) struct SecretIds(PathBuf);

impl SecretIds {
    pub(super) fn below(data_dir: &Path) -> Self {
        Self(data_dir.join(SECRET_IDS))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// None if there is no file. What is no id, as a line that a crash has torn, is passed over. Blocks.
    pub(super) fn read(&self) -> io::Result<BTreeSet<SecretId>> {
        let bytes = match small_file::read(&self.0, MAX_LEN) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            read => read?.0,
        };
        Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok()).collect())
    }

    /// Puts these in the place of all. Blocks until they are synced.
    pub(super) fn write(&self, ids: &BTreeSet<SecretId>) -> io::Result<()> {
        atomic_file::replace(&self.0, text(ids).as_bytes(), atomic_file::PRIVATE)
    }

    /// Blocks until they are synced.
    pub(super) fn add(&self, ids: &BTreeSet<SecretId>) -> io::Result<()> {
        let mut file = File::options().append(true).create(true).mode(atomic_file::PRIVATE).open(&self.0)?;
        // What was added last may be torn.
        file.write_all(format!("\n{}", text(ids)).as_bytes())?;
        file.sync_data()
    }
}

fn text(ids: &BTreeSet<SecretId>) -> String {
    ids.iter().map(|id| format!("{id}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_added_is_read_again_also_behind_a_torn_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let ids = SecretIds::below(dir.path());
        assert_eq!(ids.read().expect("no file"), BTreeSet::new());
        let [first, second, third] = [1, 2, 3].map(|number| SecretId([number; 8]));
        ids.write(&[first].into()).expect("is written");
        ids.add(&[second].into()).expect("is added");
        let whole = fs::read(ids.path()).expect("is read");
        fs::write(ids.path(), &whole[..whole.len() - 3]).expect("is torn");
        ids.add(&[third].into()).expect("is added");
        assert_eq!(ids.read().expect("is read"), [first, third].into());
        ids.write(&[second].into()).expect("is written");
        assert_eq!(ids.read().expect("is read"), [second].into());
    }
}
