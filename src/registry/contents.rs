//! What a table holds, as a store, an export and an import hand it on.

use std::sync::Arc;

use super::{Beacon, Lease};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) leases: Vec<Arc<Lease>>,
    pub(crate) beacons: Vec<Arc<Beacon>>,
}

impl Contents {
    #[cfg(any(feature = "cli", test))]
    pub(crate) fn len(&self) -> usize {
        self.leases.len() + self.beacons.len()
    }
}

#[cfg(test)]
impl Contents {
    pub(super) fn of(leases: Vec<Arc<Lease>>) -> Self {
        Self { leases, beacons: Vec::new() }
    }
}
