//! What several scrapers over one store tell each other: the changes of one are adopted by the tables of the others.
//!
//! The store numbers all changes in one order, its *revisions*. Each change of a name is applied only on top of the revision
//! that the table has adopted for that name, its *base*: two scrapers cannot both grant an alias. Who was second adopts what
//! stands there, and decides again.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use super::{Beacon, Lease, Name};
use crate::identity::{DialAddress, PublicKey};

/// A scraper of a group: those that share a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its key.
    pub key: PublicKey,
    /// Where it can be dialled. With none, it is looked up by its key.
    pub addresses: Vec<DialAddress>,
}

/// What a shared store has under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Lease(Arc<Lease>),
    Beacon(Arc<Beacon>),
}

/// What stands under a name by another scraper's doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    pub(crate) name: Name,
    /// `None` if the name is free.
    pub(crate) entry: Option<Entry>,
    /// The revision that a change of the name must be based on; 0 if the store knows nothing of the name.
    pub(crate) base: u64,
    /// Its place in the order of all changes: the base, or a later one at which it was seen.
    pub(crate) at: u64,
}

/// What a shared store reports: all changes by others up to a revision, in their order, since the last event or while nobody
/// watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SharedEvent {
    pub(crate) changes: Vec<Foreign>,
    /// Names that are gone without a word: nobody has released them.
    pub(crate) lost: Vec<Name>,
    pub(crate) at: u64,
    /// Set if the store is another one, or an older state of the one it was, and `changes` is its whole content. What the table
    /// has and the store has not is written again. Removals up to this revision were heard of before, so that what the table has
    /// came after them.
    pub(crate) reset: Option<u64>,
}

/// What the table did, for the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// This stands in the table now.
    Adopted(Foreign),
    /// All changes up to this revision stand in the table.
    Reached(u64),
    /// All bases are void.
    Reset,
}

impl Entry {
    /// When its holder, or caller, last said so.
    pub(super) fn said_at(&self) -> SystemTime {
        match self {
            Self::Lease(lease) => lease.renewed_at,
            Self::Beacon(beacon) => match beacon.expires_at.zip(beacon.lease) {
                Some((end, lease)) => end.checked_sub(lease).unwrap_or(beacon.registered_at),
                None => beacon.registered_at,
            },
        }
    }
}

/// How far a table is in the order of a shared store's changes.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// All up to this one were adopted.
    at: u64,
    /// Names of which later changes were, too.
    ahead: HashMap<Name, u64>,
}

impl Position {
    pub(super) fn new(at: u64) -> Self {
        Self { at, ahead: HashMap::new() }
    }

    /// True if a change of the watch is news, which is noted.
    pub(super) fn take(&mut self, foreign: &Foreign) -> bool {
        foreign.at > self.at && self.take_in_place_of_ours(foreign)
    }

    /// True if what stands in place of a change of ours is news, which is noted.
    pub(super) fn take_in_place_of_ours(&mut self, foreign: &Foreign) -> bool {
        let is_news = self.ahead.get(&foreign.name).is_none_or(|at| *at < foreign.at);
        if is_news {
            self.ahead.insert(foreign.name.clone(), foreign.at);
        }
        is_news
    }

    /// All changes up to this one have been adopted.
    pub(super) fn reach(&mut self, at: u64) {
        self.at = self.at.max(at);
        self.ahead.retain(|_, ahead| *ahead > self.at);
    }
}
