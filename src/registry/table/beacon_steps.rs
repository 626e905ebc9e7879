//! What the registration API does to a table. Beacons have no holder: whoever may use the API may change all of them.

use std::{collections::BTreeSet, sync::Arc};

use super::{Effects, Kept, Table};
use crate::{
    registry::{Beacon, BeaconEventKind, BeaconName, RegistryConfig},
    telemetry::Limit,
};

impl Table {
    /// Keeps the beacon, in place of the one of its name. An error is the limit that it would exceed.
    pub(in crate::registry) fn register_beacon(&mut self, beacon: Beacon) -> (Result<Kept, Limit>, Effects) {
        let mut effects = Effects::default();
        let held = self.beacons.get(&beacon.name).map(|held| held.len_bytes());
        let (bytes, before) = (beacon.len_bytes(), held.unwrap_or(0));
        let RegistryConfig { max_targets, max_per_secret, max_peer_bytes, max_secret_bytes, max_table_bytes, .. } =
            self.config;
        // The API's token is one more secret, with as large a share.
        let (of_token, max_of_token) = (self.beacons.len(), max_per_secret.unwrap_or(max_targets));
        let (token_bytes, max_token_bytes) = (self.beacons.bytes(), max_secret_bytes.unwrap_or(max_table_bytes));
        let kept = match bytes {
            _ if held.is_none() && self.count() >= max_targets => Err(Limit::Aliases),
            _ if held.is_none() && of_token >= max_of_token => Err(Limit::AliasesPerSecret),
            _ if bytes <= before => Ok(()),
            _ if bytes > max_peer_bytes => Err(Limit::PeerBytes),
            _ if self.bytes() - before + bytes > max_table_bytes => Err(Limit::TableBytes),
            _ if token_bytes - before + bytes > max_token_bytes => Err(Limit::SecretBytes),
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

    /// Notes beacons of which damage of the store may have taken a change.
    pub(in crate::registry) fn doubt_beacons(&mut self, unconfirmed: BTreeSet<BeaconName>) {
        self.beacons.doubt(unconfirmed);
    }

    pub(in crate::registry) fn unconfirmed_beacons(&self) -> &BTreeSet<BeaconName> {
        self.beacons.unconfirmed()
    }

    /// Takes the beacons in doubt for certain, and returns them: nobody need register one again.
    pub(in crate::registry) fn confirm_beacons(&mut self) -> BTreeSet<BeaconName> {
        self.beacons.confirm_all()
    }

    /// Every beacon, in the order of kinds and keys.
    pub(in crate::registry) fn beacons(&self) -> Vec<Arc<Beacon>> {
        self.beacons.iter().cloned().collect()
    }

    pub(in crate::registry) fn beacon(&self, name: &BeaconName) -> Option<Arc<Beacon>> {
        self.beacons.get(name).cloned()
    }

    /// The beacons of a kind, in the order of their keys; `None` if there was none since the load.
    pub(in crate::registry) fn beacons_of(&self, kind: &str) -> Option<Vec<Arc<Beacon>>> {
        self.beacons.of(kind)
    }
}
