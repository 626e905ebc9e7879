//! Stores keep leases and beacons across restarts.

mod beacon_record;
mod checkpoint;
mod content;
mod database;
mod files;
mod frame;
#[cfg(feature = "nats")]
mod nats;
mod noted;
mod record;
mod sled;

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc, time::SystemTime};

use rustix::io::Errno;
use tokio::sync::mpsc;

#[cfg(feature = "nats")]
pub(crate) use self::nats::NatsStore;
#[cfg(feature = "cli")]
pub(crate) use self::nats::{ProbedBucket, probe_bucket};
pub(crate) use self::sled::SledStore;
use super::{Beacon, BeaconName, Contents, Foreign, Lease, Name, Note, SharedEvent};
use crate::wire::Alias;
#[cfg(feature = "cli")]
pub(crate) use files::read_only;

/// Keeps leases and beacons, the table's *entries*. Its methods block; only the writer's thread calls them, one at a time.
pub(crate) trait Store: Send + 'static {
    /// Reads everything that was committed; of a store that is damaged, what can be read.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Applies the changes, each of another name, and returns once neither a `kill -9` nor a power cut would undo them.
    /// An error leaves that uncertain: the caller repeats each change, or a later one of its name. Without changes, looks
    /// whether the store is still there.
    ///
    /// Returns what stands in place of the changes that were not applied, because another scraper changed the same name
    /// first: the caller adopts it, and decides again. A store that is not shared returns nothing.
    fn commit(&mut self, changes: &[Change]) -> Result<Vec<Foreign>, StoreError>;

    /// What the table did with the changes of other scrapers, in the order of its own changes: each change after a note is
    /// based on it.
    fn note(&mut self, _note: Note) {}

    /// The changes of other scrapers since the load. To be taken once, after it; none if the store is not shared.
    fn shared_events(&mut self) -> Option<mpsc::Receiver<SharedEvent>> {
        None
    }

    /// Records the number of entries and their names apart from them, so that a later [`load`](Self::load) detects a loss.
    /// Called every few seconds and at the end, while the leases are complete. After a load that reported damage, they are complete
    /// once clients had the time to register again; until then each load reports the damage.
    /// After an error the previous checkpoint must still be valid.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// In any order, what has expired included.
    pub(crate) contents: Contents,
    /// The aliases of which damage may have taken a release or a change.
    pub(crate) unconfirmed: BTreeSet<Alias>,
    /// The same of beacons.
    pub(crate) unconfirmed_beacons: BTreeSet<BeaconName>,
    /// Records that could not be read.
    pub(crate) unreadable: u64,
    /// Leases were lost, or may have been.
    pub(crate) damage: Option<Damage>,
    /// Why nothing can be committed for now.
    pub(crate) failure: Option<StoreError>,
    /// How far this is in the order of a shared store's changes.
    pub(crate) position: u64,
    /// When a shared store was last reached, if this is a copy of it.
    pub(crate) copied_at: Option<SystemTime>,
}

/// A loss of leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Entries at the last checkpoint, if that is readable.
    pub(crate) noted: Option<u64>,
    /// Entries that are left.
    pub(crate) found: u64,
    /// The aliases whose lease was running at the last checkpoint, and the beacons, if that is readable.
    pub(crate) awaited: Option<BTreeSet<Name>>,
}

/// One change of what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Stores the lease, replacing an older one of its alias.
    Put(Arc<Lease>),
    Remove(Alias),
    /// Stores the beacon, replacing an older one of its name.
    PutBeacon(Arc<Beacon>),
    RemoveBeacon(BeaconName),
}

impl Change {
    pub(super) fn name(&self) -> Name {
        match self {
            Self::Put(lease) => Name::Alias(lease.alias.clone()),
            Self::Remove(alias) => Name::Alias(alias.clone()),
            Self::PutBeacon(beacon) => Name::Beacon(beacon.name.clone()),
            Self::RemoveBeacon(name) => Name::Beacon(name.clone()),
        }
    }
}

/// Why a store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open.
    #[error("registry store {} is in use by another narthex: stop that one", path.display())]
    Locked {
        /// The store's path.
        path: PathBuf,
    },
    /// The store was written by a later version.
    #[error("registry store {} has format {format}, of a later version of narthex: use that one", path.display())]
    Format {
        /// The table's file.
        path: PathBuf,
        /// The number of the format.
        format: u32,
    },
    /// The store's file was deleted or replaced while in use.
    #[error("registry store {} was deleted or replaced by somebody else", path.display())]
    Gone {
        /// The table's file.
        path: PathBuf,
    },
    /// The operating system refused to read or write.
    #[error("registry store {} cannot be {attempt}", path.display())]
    Backend {
        /// The store's path.
        path: PathBuf,
        /// `opened`, `read` or `written`.
        attempt: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// A shared store cannot be reached, or does not answer.
    #[error("registry store {url} cannot be reached: {reason}")]
    Unreachable {
        /// The servers.
        url: String,
        /// What the connection says.
        reason: String,
    },
    /// A defect of the store.
    #[error("registry store panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
}

impl StoreError {
    fn is_denied(&self) -> bool {
        matches!(self, Self::Backend { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// True if the same may succeed later: the disk is full, read-only, closed to us or failing, or the machine short of
    /// something. A scraper starts without.
    fn may_pass(&self) -> bool {
        let Self::Backend { source, .. } = self else { return false };
        let passing = [
            Errno::ACCESS,
            Errno::PERM,
            Errno::DQUOT,
            Errno::ROFS,
            Errno::NOSPC,
            Errno::IO,
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::INTR,
            Errno::STALE,
            Errno::TIMEDOUT,
        ];
        Errno::from_io_error(source).is_some_and(|errno| passing.contains(&errno))
    }
}
