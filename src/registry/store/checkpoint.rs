//! A small file beside the table's that records how far the table had come.
//!
//! A table that lost its end, or that is gone, looks like one that never held more: only a record elsewhere reveals the
//! loss. The file is one line of text with a checksum, replaced as a whole. It may be behind the table, never ahead.

use std::{fs, io, path::Path};

use blake2::{Blake2s256, Digest};
use data_encoding::HEXLOWER;

use crate::atomic_file;

/// The last field of a checkpoint's line.
const INTACT: &str = "whole";
/// In its place, once damage was found.
const DAMAGED: &str = "damaged";

/// The content of a table at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The table, if its version had an id.
    pub(super) id: Option<u64>,
    /// The group of the last commit.
    pub(super) sequence: u64,
    /// Leases after the last commit.
    pub(super) entries: u64,
    /// Set if damage was found since, and clients have not had the time to register again: entries of this group and those
    /// before are in doubt.
    pub(super) doubt: Option<u64>,
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
    /// Reads the file; `None` if there is none.
    pub(super) fn read(file: &Path) -> Result<Option<Self>, CheckpointError> {
        match fs::metadata(file) {
            // Reading may block, or never end.
            Ok(there) if !there.is_file() => return Err(CheckpointError::Damaged),
            _ => {}
        }
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
        let Self { id, sequence, entries, doubt } = self;
        let state = doubt.map_or_else(|| INTACT.to_owned(), |doubt| format!("{DAMAGED} {doubt}"));
        let body = format!("v3 {:016x} {sequence} {entries} {state}", id.unwrap_or_default());
        format!("{body} {}\n", checksum(&body))
    }

    /// Version 1, which stood beside a table of format 1, did not know of doubt, and neither it nor version 2 of ids.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.rsplit_once(' ')?;
        let mut words: Vec<&str> = body.split(' ').collect();
        let id = match words[0] {
            "v3" if words.len() > 1 => Some(u64::from_str_radix(words.remove(1), 16).ok()?),
            _ => None,
        };
        let doubt = match words[..] {
            _ if sum != checksum(body) => return None,
            ["v1" | "v2" | "v3", _, _, INTACT] => None,
            ["v1", _, _, DAMAGED] => Some(0),
            ["v2" | "v3", _, _, DAMAGED, doubt] => Some(doubt.parse().ok()?),
            _ => return None,
        };
        Some(Self { id, sequence: words[1].parse().ok()?, entries: words[2].parse().ok()?, doubt })
    }
}

fn checksum(body: &str) -> String {
    HEXLOWER.encode(&Blake2s256::digest(body)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKPOINT: Checkpoint = Checkpoint { id: Some(0xab), sequence: 12, entries: 500, doubt: None };

    #[test]
    fn a_checkpoint_is_read_as_it_was_last_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("a.check");
        assert!(matches!(Checkpoint::read(&file), Ok(None)));
        for checkpoint in [CHECKPOINT, Checkpoint { doubt: Some(7), ..CHECKPOINT }] {
            checkpoint.write(&file).expect("written");
            assert_eq!(Checkpoint::read(&file).expect("whole"), Some(checkpoint));
        }
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 1);
    }

    #[test]
    fn a_checkpoint_of_an_earlier_version_is_read() {
        for (body, doubt) in
            [("v1 12 500 whole", None), ("v1 12 500 damaged", Some(0)), ("v2 12 500 damaged 7", Some(7))]
        {
            let line = format!("{body} {}\n", checksum(body));
            assert_eq!(Checkpoint::decode(line.as_bytes()), Some(Checkpoint { id: None, doubt, ..CHECKPOINT }));
        }
    }

    #[test]
    fn a_checkpoint_with_any_bit_flipped_is_refused() {
        let bytes = CHECKPOINT.encode().into_bytes();
        assert!(bytes.starts_with(b"v3 00000000000000ab 12 500 whole "));
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
