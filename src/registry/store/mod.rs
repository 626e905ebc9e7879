//! Where leases survive a restart.

mod mark;
mod record;
mod sled;
mod witness;

use std::{path::PathBuf, sync::Arc};

pub use self::sled::SledStore;
use super::Lease;
use crate::wire::Alias;

/// A place that keeps leases. Its methods block; only the writer's thread calls them, one at a time.
pub trait Store: Send + 'static {
    /// Everything that was committed.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read at all. A single record that cannot be read is skipped, counted, and left
    /// where it is.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Applies the changes, which are of different aliases, and returns once a `kill -9` would not undo them.
    ///
    /// # Errors
    /// [`StoreError`] if that is not certain. Each change, or a later one of its alias, then comes again.
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError>;

    /// Notes apart from the leases how many there are, so that a later [`load`](Self::load) can tell if some were lost.
    /// Called every few seconds and at the end, but only while the leases are known to be complete: after a load that
    /// told of damage not before clients had the time to register again, and until then each load tells of it.
    ///
    /// # Errors
    /// [`StoreError`] if it could not be noted. The note from before must still be good then.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What a [`Store`] held.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The leases, in any order, run out or not.
    pub leases: Vec<Lease>,
    /// Records that could not be read.
    pub unreadable: u64,
    /// Leases were lost, or may have been.
    pub damage: Option<Damage>,
}

/// A [`Store`] does not hold what it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Leases that it held when that was last noted, if this is known.
    pub noted: Option<u64>,
    /// Leases that are left.
    pub found: u64,
}

/// One change to what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Keeps the lease, in place of an older one for its alias.
    Put(Arc<Lease>),
    /// Forgets the lease of the alias.
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
    /// Another process has it open.
    #[error("registry store {} is in use by another process: stop that one, or use another directory", path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// Its files are not what they were when they were written.
    #[error("registry store {} is damaged: move it away and start again, clients register anew", path.display())]
    Damaged {
        /// The store's directory.
        path: PathBuf,
        /// What was found.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operating system, or a server, refused to read or write.
    #[error("registry store {place} cannot be {attempt}")]
    Backend {
        /// The store's directory or address.
        place: String,
        /// `opened`, `read` or `written`.
        attempt: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
