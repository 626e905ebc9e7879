//! What a database says of itself, written with each commit.

use super::witness::{Witness, WitnessError};

/// How far a database has come; as old as its latest commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Commits so far.
    pub(super) sequence: u64,
    /// Leases, unreadable ones included.
    pub(super) leases: u64,
}

impl Mark {
    /// The database's mark. One that was made before there were marks, or by nobody yet, has no commit and what it holds.
    pub(super) fn of(tree: &sled::Tree) -> sled::Result<Self> {
        match tree.get(MARK)?.and_then(|value| Self::decode(&value)) {
            Some(mark) => Ok(mark),
            None => {
                let keys = tree.iter().keys().filter(|key| key.as_ref().map_or(true, |key| key != MARK));
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

/// The witness of an earlier start, where there is one, must not have seen more than the database knows of.
pub(super) fn is_damaged(mark: Option<Mark>, found: u64, witness: &Result<Option<Witness>, WitnessError>) -> bool {
    let known = mark.unwrap_or_default();
    mark.is_some_and(|mark| mark.leases != found)
        || match witness {
            Ok(None) => false,
            Ok(Some(witness)) => !witness.whole || known.sequence < witness.sequence,
            Err(error) => {
                tracing::warn!(error = error as &dyn std::error::Error, "the check file of the store is of no use");
                true
            }
        }
}

/// The key of the mark: no alias.
pub(super) const MARK: &[u8] = b"\0mark";
