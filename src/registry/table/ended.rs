//! Leases whose time was over, retention included, before the table was loaded.
//!
//! Nobody saw them end, and the clock may be wrong: it is set only some time after the start of a machine without one of its
//! own. So they are not listed and protect no alias, but stay on disk until a lease's time has passed in which the clock was
//! not set. If the clock is set back, those whose time is not over are in the table again.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::Arc,
    time::SystemTime,
};

use crate::{identity::PublicKey, registry::Lease, wire::Alias};

#[derive(Debug)]
pub(super) struct Ended {
    /// By holder: each registration looks for what its peer no longer claims.
    leases: HashMap<PublicKey, BTreeMap<Alias, Arc<Lease>>>,
    holders: HashMap<Alias, PublicKey>,
    /// When they are dropped.
    pub(super) until: SystemTime,
}

impl Ended {
    pub(super) fn new(until: SystemTime) -> Self {
        Self { leases: HashMap::new(), holders: HashMap::new(), until }
    }

    pub(super) fn len(&self) -> usize {
        self.holders.len()
    }

    pub(super) fn is_holder(&self, peer: &PublicKey) -> bool {
        self.leases.contains_key(peer)
    }

    pub(super) fn keep(&mut self, lease: Arc<Lease>) {
        let alias = lease.alias.clone();
        self.take(&alias);
        self.holders.insert(alias.clone(), lease.peer);
        self.leases.entry(lease.peer).or_default().insert(alias, lease);
    }

    pub(super) fn take(&mut self, alias: &Alias) -> Option<Arc<Lease>> {
        let holder = self.holders.remove(alias)?;
        let of_holder = self.leases.get_mut(&holder)?;
        let lease = of_holder.remove(alias);
        if of_holder.is_empty() {
            self.leases.remove(&holder);
        }
        lease
    }

    pub(super) fn take_all(&mut self) -> Vec<Arc<Lease>> {
        self.holders.clear();
        mem::take(&mut self.leases).into_values().flat_map(BTreeMap::into_values).collect()
    }

    /// Those of the peer, by alias.
    pub(super) fn take_of(&mut self, peer: &PublicKey, which: impl Fn(&Alias) -> bool) -> Vec<Arc<Lease>> {
        let of_peer = self.leases.get(peer).into_iter().flat_map(BTreeMap::keys);
        let taken: Vec<Alias> = of_peer.filter(|alias| which(alias)).cloned().collect();
        taken.iter().filter_map(|alias| self.take(alias)).collect()
    }

    /// Those that are chosen, of all.
    pub(super) fn take_where(&mut self, which: impl Fn(&Lease) -> bool) -> Vec<Arc<Lease>> {
        let all = self.leases.values().flat_map(BTreeMap::values);
        let taken: Vec<Alias> = all.filter(|lease| which(lease)).map(|lease| lease.alias.clone()).collect();
        taken.iter().filter_map(|alias| self.take(alias)).collect()
    }
}
