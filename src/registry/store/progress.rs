//! How far a database has come: counters that each commit writes beside its leases.

use super::checkpoint::{Checkpoint, CheckpointError};

/// The key of the counters. An alias has no zero byte.
pub(super) const PROGRESS_KEY: &[u8] = b"\0mark";

/// The counters in the database, as of its latest commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Commits so far.
    pub(super) sequence: u64,
    /// Leases, unreadable ones included.
    pub(super) leases: u64,
}

impl Progress {
    /// The database's counters. A new database has none, nor has one from before the counters: its leases are counted.
    pub(super) fn of(tree: &sled::Tree) -> sled::Result<Self> {
        match tree.get(PROGRESS_KEY)?.and_then(|value| Self::decode(&value)) {
            Some(progress) => Ok(progress),
            None => {
                let keys = tree.iter().keys().filter(|key| key.as_ref().map_or(true, |key| key != PROGRESS_KEY));
                let leases = keys.map(|key| key.map(|_| 1)).sum::<sled::Result<u64>>()?;
                Ok(Self { sequence: 0, leases })
            }
        }
    }

    pub(super) fn encode(self) -> [u8; 16] {
        ((u128::from(self.sequence) << 64) | u128::from(self.leases)).to_be_bytes()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (sequence, leases) = bytes.split_first_chunk()?;
        let (sequence, leases) = (u64::from_be_bytes(*sequence), u64::from_be_bytes(leases.try_into().ok()?));
        Some(Self { sequence, leases })
    }
}

/// True if the database has lost leases: it has fewer than it counted (`found` are there), or it is behind the
/// checkpoint of an earlier run.
pub(super) fn is_damaged(
    progress: Option<Progress>,
    found: u64,
    checkpoint: &Result<Option<Checkpoint>, CheckpointError>,
) -> bool {
    let known = progress.unwrap_or_default();
    progress.is_some_and(|progress| progress.leases != found)
        || match checkpoint {
            Ok(None) => false,
            Ok(Some(checkpoint)) => !checkpoint.intact || known.sequence < checkpoint.sequence,
            Err(error) => {
                tracing::warn!(error = error as &dyn std::error::Error, "the check file of the store is of no use");
                true
            }
        }
}
