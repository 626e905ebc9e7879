//! A small file beside the database that remembers how far the database had come.
//!
//! A database that cuts its log at the first damaged byte, or that is gone, looks like one that never held more. Whoever
//! reads it finds out only by what was noted elsewhere. The file is one line of text with a checksum, replaced as a
//! whole; it may lag behind the database, never run ahead of it.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use blake2::{Blake2s256, Digest};
use data_encoding::HEXLOWER;

use crate::atomic_file;

/// What a database held at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Witness {
    /// Commits up to then.
    pub(super) sequence: u64,
    /// Leases after the last one.
    pub(super) leases: u64,
    /// False if the database was found damaged since, and clients have not had the time to register again.
    pub(super) whole: bool,
}

/// Why there is no telling how far the database had come.
#[derive(Debug, thiserror::Error)]
pub(super) enum WitnessError {
    #[error("file cannot be read")]
    Read(#[source] io::Error),
    #[error("file is not what was written")]
    Damaged,
}

impl Witness {
    /// Where the witness of the database in the directory `store` is: beside it, as the directory may be lost.
    pub(super) fn path(store: &Path) -> PathBuf {
        let mut path = OsString::from(store);
        path.push(".check");
        path.into()
    }

    /// The witness in the file; none if there is no file.
    pub(super) fn read(file: &Path) -> Result<Option<Self>, WitnessError> {
        match fs::read(file) {
            Ok(bytes) => Self::decode(&bytes).map(Some).ok_or(WitnessError::Damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(WitnessError::Read(error)),
        }
    }

    /// Replaces the file. After a crash it is either the old one or the new one.
    pub(super) fn write(self, file: &Path) -> io::Result<()> {
        atomic_file::replace(file, self.encode().as_bytes(), atomic_file::SHARED)
    }

    fn encode(self) -> String {
        let Self { sequence, leases, whole } = self;
        let body = format!("v1 {sequence} {leases} {}", if whole { WHOLE } else { DAMAGED });
        format!("{body} {}\n", checksum(&body))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.rsplit_once(' ')?;
        let mut words = body.strip_prefix("v1 ").filter(|_| sum == checksum(body))?.split(' ');
        let (sequence, leases) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let whole = match words.next()? {
            WHOLE => true,
            DAMAGED => false,
            _ => return None,
        };
        Some(Self { sequence, leases, whole })
    }
}

fn checksum(body: &str) -> String {
    HEXLOWER.encode(&Blake2s256::digest(body)[..8])
}

const WHOLE: &str = "whole";
const DAMAGED: &str = "damaged";

#[cfg(test)]
mod tests {
    use super::*;

    const WITNESS: Witness = Witness { sequence: 12, leases: 500, whole: true };

    #[test]
    fn a_witness_is_read_as_it_was_written_last() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = Witness::path(&directory.path().join("a.b"));
        assert!(file.ends_with("a.b.check"));
        assert!(matches!(Witness::read(&file), Ok(None)));
        for witness in [WITNESS, Witness { whole: false, ..WITNESS }] {
            witness.write(&file).expect("written");
            assert_eq!(Witness::read(&file).expect("whole"), Some(witness));
        }
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 1);
    }

    #[test]
    fn a_witness_with_any_bit_turned_is_no_witness() {
        let bytes = WITNESS.encode().into_bytes();
        assert!(bytes.starts_with(b"v1 12 500 whole "));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Witness::decode(&damaged), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Witness::decode(&bytes[..len]), None, "{len} bytes");
        }
    }
}
