//! Leases whose time was over, retention included, before the table was loaded.
//!
//! Nobody saw them end, and the clock may be wrong: it is set only some time after the start of a machine without one of its
//! own. So they are not listed and protect no alias, but stay on disk until a lease's time has passed in which the clock was
//! not set. If the clock is set back, those whose time is not over are in the table again.

use std::{collections::BTreeMap, mem, sync::Arc, time::SystemTime};

use super::{Effects, Entry, Table, later};
use crate::{
    registry::{Change, EventKind, Lease, LeaseState, RegistryConfig},
    wire::Alias,
};

#[derive(Debug)]
pub(super) struct Ended {
    leases: BTreeMap<Alias, Arc<Lease>>,
    /// When they are dropped.
    until: SystemTime,
}

/// True if not even the retention is left.
fn is_over(lease: &Lease, config: &RegistryConfig, now: SystemTime) -> bool {
    lease.state(now) == LeaseState::Lapsed && later(lease.expires_at, config.retention) <= now
}

impl Ended {
    pub(super) fn new(config: &RegistryConfig, now: SystemTime) -> Self {
        Self { leases: BTreeMap::new(), until: later(now, config.lease) }
    }

    pub(super) fn any(&self, of: impl Fn(&Lease) -> bool) -> bool {
        self.leases.values().any(|lease| of(lease))
    }

    /// The alias is in the table again, or somebody else's.
    pub(super) fn forget(&mut self, alias: &Alias) {
        self.leases.remove(alias);
    }
}

impl Table {
    /// Leases that had ended before the load, and are kept for now.
    pub(in crate::registry) fn ended(&self) -> usize {
        self.ended.leases.len()
    }

    /// Takes a stored lease into the table, or keeps it beside the table if its time is over.
    pub(super) fn take_stored(&mut self, lease: Arc<Lease>, now: SystemTime) {
        if is_over(&lease, &self.config, now) {
            self.unconfirmed.remove(&lease.alias);
            self.ended.leases.insert(lease.alias.clone(), lease);
        } else {
            let lapsed = lease.state(now) == LeaseState::Lapsed;
            self.insert(Entry::new(lease, lapsed, 0));
        }
    }

    /// Judges again after the clock was set, and drops what is still over in the end.
    pub(super) fn judge_ended(&mut self, now: SystemTime, effects: &mut Effects) {
        if effects.clock.is_some() {
            self.ended.until = later(now, self.config.lease);
            let before = mem::take(&mut self.ended.leases);
            let count = before.len();
            for (_, lease) in before {
                self.take_stored(lease, now);
            }
            effects.relisted |= self.ended() < count;
        } else if now >= self.ended.until {
            self.end_ended(EventKind::Gone, |_| true, effects);
        }
    }

    /// Drops these from the disk, too.
    pub(super) fn end_ended(&mut self, kind: EventKind, which: impl Fn(&Lease) -> bool, effects: &mut Effects) {
        let (dropped, kept) = mem::take(&mut self.ended.leases).into_iter().partition(|(_, lease)| which(lease));
        self.ended.leases = kept;
        let dropped: BTreeMap<Alias, Arc<Lease>> = dropped;
        for (alias, lease) in dropped {
            effects.event(&alias, lease.peer, kind);
            effects.changes.push(Change::Remove(alias));
        }
    }
}
