//! Stores keep leases across restarts.

mod checkpoint;
mod progress;
mod record;
mod sled;

use std::{path::PathBuf, sync::Arc};

pub(crate) use self::sled::SledStore;
use super::Lease;
use crate::wire::Alias;

/// Keeps leases. Its methods block; only the writer's thread calls them, one at a time.
pub(crate) trait Store: Send + 'static {
    /// Reads everything that was committed. A record that cannot be read is counted, skipped and kept.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Applies the changes, each of another alias, and returns once a `kill -9` would not undo them.
    /// An error leaves that uncertain: the caller repeats each change, or a later one of its alias.
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// Records the number of leases apart from them, so that a later [`load`](Self::load) detects a loss. Called every
    /// few seconds and at the end, while the leases are complete. After a load that reported damage, they are complete
    /// once clients had the time to register again; until then each load reports the damage.
    /// After an error the previous checkpoint must still be valid.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// The leases in any order, expired ones included.
    pub(crate) leases: Vec<Lease>,
    /// Records that could not be read.
    pub(crate) unreadable: u64,
    /// Leases were lost, or may have been.
    pub(crate) damage: Option<Damage>,
}

/// A loss of leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Leases at the last checkpoint, if that is readable.
    pub(crate) noted: Option<u64>,
    /// Leases that are left.
    pub(crate) found: u64,
}

/// One change of the stored leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Stores the lease, replacing an older one of its alias.
    Put(Arc<Lease>),
    Remove(Alias),
}

impl Change {
    pub(super) fn alias(&self) -> &Alias {
        match self {
            Self::Put(lease) => &lease.alias,
            Self::Remove(alias) => alias,
        }
    }
}

/// Why a store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open.
    #[error("registry store {} is in use by another process: stop that one, or use another directory", path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// The store's files are not as they were written.
    #[error("registry store {} is damaged: move it away and start again, clients register anew", path.display())]
    Damaged {
        /// The store's directory.
        path: PathBuf,
        /// The database's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operating system refused to read or write.
    #[error("registry store {} cannot be {attempt}", path.display())]
    Backend {
        /// The store's directory.
        path: PathBuf,
        /// `opened`, `read` or `written`.
        attempt: &'static str,
        /// The operating system's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
