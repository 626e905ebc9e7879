//! What the registration API does to a table. Beacons have no holder: whoever may use the API may change all of them.

use std::sync::Arc;

use super::{Effects, Kept, Table};
use crate::{
    registry::{Beacon, BeaconEventKind, BeaconName},
    telemetry::Limit,
};

impl Table {
    /// Keeps the beacon, in place of the one of its name. An error is the limit that it would exceed.
    pub(in crate::registry) fn register_beacon(&mut self, beacon: Beacon) -> (Result<Kept, Limit>, Effects) {
        let mut effects = Effects::default();
        let held = self.beacons.get(&beacon.name).map(|held| held.len_bytes());
        let (bytes, before) = (beacon.len_bytes(), held.unwrap_or(0));
        let kept = match bytes {
            _ if held.is_none() && self.count() >= self.config.max_targets => Err(Limit::Aliases),
            _ if bytes <= before => Ok(()),
            _ if bytes > self.config.max_alias_bytes => Err(Limit::AliasBytes),
            _ if self.bytes() - before + bytes > self.config.max_table_bytes => Err(Limit::TableBytes),
            _ => Ok(()),
        };
        (kept.map(|()| self.beacons.register(beacon, &mut effects)), effects)
    }

    /// Forgets the beacon; false if there is none.
    pub(in crate::registry) fn unregister_beacon(&mut self, name: &BeaconName) -> (bool, Effects) {
        let mut effects = Effects::default();
        let was_there = self.beacons.forget(name, BeaconEventKind::Unregistered, &mut effects);
        (was_there, effects)
    }

    /// Every beacon, in the order of kinds and keys.
    pub(in crate::registry) fn beacons(&self) -> Vec<Arc<Beacon>> {
        self.beacons.iter().cloned().collect()
    }

    /// The beacons of a kind, in the order of their keys; `None` if there was none since the load.
    pub(in crate::registry) fn beacons_of(&self, kind: &str) -> Option<Vec<Arc<Beacon>>> {
        let of_kind = self.beacons.iter().filter(|beacon| beacon.name.kind() == kind);
        self.beacons.knows(kind).then(|| of_kind.cloned().collect())
    }
}
