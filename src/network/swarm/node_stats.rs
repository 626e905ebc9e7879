//! What a node has done for others: counted where it happens, read when metrics are asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counts of a node since its start, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeCounts {
    /// Announcements held.
    pub(crate) records: u64,
    /// Announcements taken, new ones and renewals.
    pub(crate) records_stored: u64,
    /// Announcements forgotten to make room for another.
    pub(crate) records_displaced: u64,
    pub(crate) records_refused: RecordRefusals,
    /// Look-ups answered with an announcement.
    pub(crate) lookups_found: u64,
    /// Look-ups answered without one.
    pub(crate) lookups_missed: u64,
    /// Peers that hold a reservation.
    pub(crate) reservations: u64,
    /// Requests for a reservation that were granted, renewals among them.
    pub(crate) reservations_granted: u64,
    /// Requests for a reservation that were refused: a limit was reached.
    pub(crate) reservations_refused: u64,
    pub(crate) circuits: u64,
    pub(crate) circuits_built: u64,
    pub(crate) circuits_refused: CircuitRefusals,
    pub(crate) circuits_ended: CircuitEnds,
    pub(crate) dial_backs: u64,
    /// Requests to be dialled back that broke off.
    pub(crate) dial_backs_failed: u64,
    /// Requests to be dialled back at an address that is not the asker's own, or is private, or too often.
    pub(crate) dial_backs_refused: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordRefusals {
    /// Sent by another peer than its owner.
    pub(crate) not_owner: u64,
    pub(crate) signature: u64,
    /// Malformed, too long, expired, or of another version.
    pub(crate) malformed: u64,
    /// Not newer than the one that is held.
    pub(crate) stale: u64,
    pub(crate) full: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CircuitRefusals {
    /// A limit: too many circuits, of all peers or of this one, or too many requests from it or its address.
    pub(crate) limit: u64,
    /// The other end has no reservation here.
    pub(crate) no_reservation: u64,
    /// The other end's connections are full of circuits.
    pub(crate) no_room: u64,
    /// The other end did not answer.
    pub(crate) unreachable: u64,
    /// The request makes no sense.
    pub(crate) malformed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CircuitEnds {
    /// By one of its ends, or because one was lost.
    pub(crate) closed: u64,
    /// The circuit has carried its share of bytes.
    pub(crate) bytes: u64,
    /// The circuit has lived its time.
    pub(crate) duration: u64,
}

/// Written by the network's task.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeStats(Arc<Mutex<NodeCounts>>);

impl NodeStats {
    pub(crate) fn counts(&self) -> NodeCounts {
        *self.lock()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut NodeCounts)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, NodeCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
