//! Leases whose time was over, retention included, before the table was loaded.
//!
//! Nobody saw them end, and the clock may be wrong: it is set only some time after the start of a machine without one of its
//! own. So they are not listed and protect no alias, but stay on disk until a lease's time has passed in which the clock was
//! not set. If the clock is set back, those whose time is not over are in the table again.

use std::{collections::BTreeMap, mem, sync::Arc, time::SystemTime};

use crate::{registry::Lease, wire::Alias};

#[derive(Debug)]
pub(super) struct Ended {
    leases: BTreeMap<Alias, Arc<Lease>>,
    /// When they are dropped.
    pub(super) until: SystemTime,
}

impl Ended {
    pub(super) fn new(until: SystemTime) -> Self {
        Self { leases: BTreeMap::new(), until }
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(super) fn any(&self, which: impl Fn(&Lease) -> bool) -> bool {
        self.leases.values().any(|lease| which(lease))
    }

    pub(super) fn keep(&mut self, lease: Arc<Lease>) {
        self.leases.insert(lease.alias.clone(), lease);
    }

    /// The alias is in the table again, or somebody else's.
    pub(super) fn forget(&mut self, alias: &Alias) {
        self.leases.remove(alias);
    }

    pub(super) fn take(&mut self, which: impl Fn(&Lease) -> bool) -> Vec<Arc<Lease>> {
        let (taken, kept): (BTreeMap<_, _>, _) =
            mem::take(&mut self.leases).into_iter().partition(|(_, lease)| which(lease));
        self.leases = kept;
        taken.into_values().collect()
    }
}
