//! The file of peer rules on the disk.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{PeerRules, PeerRulesError, Rule, peer_rules::with_rule};
use crate::{atomic_file, identity::PublicKey, small_file};

/// The file's name in the data directory, if no other is given.
pub(super) const PEER_FILE: &str = "peers";
/// Most bytes of a file: a hundred thousand lines and more.
const MAX_LEN: u64 = 16 << 20;

/// Why the rules of peers could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFileError {
    /// The operating system's error.
    #[error("cannot {} {}", doing, path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system reports.
        source: io::Error,
    },
    /// Something else than rules.
    #[error("{} has no rule for keys", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line.
        source: PeerRulesError,
    },
}

/// Where the rules are.
#[derive(Clone, Debug)]
pub(crate) struct PeerFile {
    pub(crate) path: PathBuf,
    /// True if somebody has named it, and so it must be there.
    pub(crate) is_given: bool,
}

impl PeerFile {
    /// The given file, or that of the data directory.
    pub(crate) fn new(given: Option<PathBuf>, data_dir: &Path) -> Self {
        let is_given = given.is_some();
        Self { path: given.unwrap_or_else(|| data_dir.join(PEER_FILE)), is_given }
    }

    /// The rules; none if there is no file and none was given. Blocks.
    pub(crate) fn read(&self) -> Result<PeerRules, PeerFileError> {
        self.parse(&self.text()?)
    }

    /// Puts a rule for a key into the file, and returns all rules. Blocks until it is synced.
    pub(crate) fn change(&self, key: &PublicKey, rule: &Rule) -> Result<PeerRules, PeerFileError> {
        let text = self.text()?;
        self.parse(&text)?; // a file that a person left broken is not made worse
        let changed = with_rule(&text, key, rule);
        let rules = self.parse(&changed)?;
        let mode = fs::metadata(&self.path).map_or(atomic_file::PRIVATE, |metadata| {
            std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
        });
        atomic_file::replace(&self.path, changed.as_bytes(), mode).map_err(|source| self.failed("write", source))?;
        Ok(rules)
    }

    fn text(&self) -> Result<String, PeerFileError> {
        match small_file::read(&self.path, MAX_LEN) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_given => Ok(String::new()),
            Err(source) => Err(self.failed("read", source)),
            Ok((bytes, _)) => String::from_utf8(bytes.to_vec())
                .map_err(|_| self.failed("read", io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))),
        }
    }

    fn parse(&self, text: &str) -> Result<PeerRules, PeerFileError> {
        PeerRules::parse(text).map_err(|source| PeerFileError::Content { path: self.path.clone(), source })
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> PeerFileError {
        PeerFileError::Io { doing, path: self.path.clone(), source }
    }
}
