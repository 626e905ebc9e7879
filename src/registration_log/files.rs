//! The files of a log: each is named by its first entry, so that names sort as the entries do.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// How the names end.
const SUFFIX: &str = ".jsonl";
/// Digits of the number of an entry in a name.
const DIGITS: usize = 20;

/// No log comes to as many entries: a number beyond it was made up.
pub(super) const MAX_SEQ: u64 = 1 << 62;

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogFile {
    /// The number of its first entry, by its name.
    pub(crate) first: u64,
    pub(crate) path: PathBuf,
}

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct LogFiles(pub(crate) PathBuf);

impl LogFiles {
    /// The files in the order of their entries; none if there is no directory. Other files are passed over.
    pub(crate) fn list(&self) -> io::Result<Vec<LogFile>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if let Some(first) = number(&path) {
                files.push(LogFile { first, path });
            }
        }
        files.sort();
        Ok(files)
    }

    /// Where a file that begins with this entry is.
    pub(super) fn path(&self, first: u64) -> PathBuf {
        self.0.join(format!("{first:0DIGITS$}{SUFFIX}"))
    }
}

fn number(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    let number = (digits.len() == DIGITS).then(|| digits.parse().ok()).flatten();
    number.filter(|number| *number < MAX_SEQ)
}
