//! A small file beside the database that records how far the database had come.
//!
//! A database that cut its log at a damaged byte, or that is gone, looks like one that never held more: only a record
//! elsewhere reveals the loss. The file is one line of text with a checksum, replaced as a whole. It may be behind the
//! database, never ahead.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use blake2::{Blake2s256, Digest};
use data_encoding::HEXLOWER;

use crate::atomic_file;

/// The last field of a checkpoint's line.
const INTACT: &str = "whole";
/// In its place, once damage was found.
const DAMAGED: &str = "damaged";

/// The content of a database at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Commits so far.
    pub(super) sequence: u64,
    /// Leases after the last commit.
    pub(super) leases: u64,
    /// False if damage was found since, and clients have not had the time to register again.
    pub(super) intact: bool,
}

/// Why the checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckpointError {
    #[error("file cannot be read")]
    Read(#[source] io::Error),
    #[error("file is not what was written")]
    Damaged,
}

impl Checkpoint {
    /// The file for the database in the directory `store`: beside the directory, which may be lost.
    pub(super) fn path(store: &Path) -> PathBuf {
        let mut path = OsString::from(store);
        path.push(".check");
        path.into()
    }

    /// Reads the file; `None` if there is none.
    pub(super) fn read(file: &Path) -> Result<Option<Self>, CheckpointError> {
        match fs::read(file) {
            Ok(bytes) => Self::decode(&bytes).map(Some).ok_or(CheckpointError::Damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CheckpointError::Read(error)),
        }
    }

    pub(super) fn write(self, file: &Path) -> io::Result<()> {
        atomic_file::replace(file, self.encode().as_bytes(), atomic_file::SHARED)
    }

    fn encode(self) -> String {
        let Self { sequence, leases, intact } = self;
        let body = format!("v1 {sequence} {leases} {}", if intact { INTACT } else { DAMAGED });
        format!("{body} {}\n", checksum(&body))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.rsplit_once(' ')?;
        let mut words = body.strip_prefix("v1 ").filter(|_| sum == checksum(body))?.split(' ');
        let (sequence, leases) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let intact = match words.next()? {
            INTACT => true,
            DAMAGED => false,
            _ => return None,
        };
        Some(Self { sequence, leases, intact })
    }
}

fn checksum(body: &str) -> String {
    HEXLOWER.encode(&Blake2s256::digest(body)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKPOINT: Checkpoint = Checkpoint { sequence: 12, leases: 500, intact: true };

    #[test]
    fn a_checkpoint_is_read_as_it_was_last_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = Checkpoint::path(&directory.path().join("a.b"));
        assert!(file.ends_with("a.b.check"));
        assert!(matches!(Checkpoint::read(&file), Ok(None)));
        for checkpoint in [CHECKPOINT, Checkpoint { intact: false, ..CHECKPOINT }] {
            checkpoint.write(&file).expect("written");
            assert_eq!(Checkpoint::read(&file).expect("whole"), Some(checkpoint));
        }
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 1);
    }

    #[test]
    fn a_checkpoint_with_any_bit_flipped_is_refused() {
        let bytes = CHECKPOINT.encode().into_bytes();
        assert!(bytes.starts_with(b"v1 12 500 whole "));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Checkpoint::decode(&damaged), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Checkpoint::decode(&bytes[..len]), None, "{len} bytes");
        }
    }
}
