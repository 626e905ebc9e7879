//! Where others may reach us, as far as the swarm knows.

use libp2p::Multiaddr;

use super::peer_id;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// What we listen on: an address of this host each.
    pub(super) listeners: Vec<Multiaddr>,
    /// Where the operator says that we are.
    pub(super) given: Vec<Multiaddr>,
    /// Others that lead to us.
    pub(super) confirmed: Vec<Multiaddr>,
    /// Through relays.
    pub(super) circuits: Vec<Multiaddr>,
}

impl Reach {
    pub(super) fn new<'a>(
        listening: impl Iterator<Item = &'a Multiaddr>,
        external: impl Iterator<Item = &'a Multiaddr>,
        given: Vec<Multiaddr>,
    ) -> Self {
        let (circuits, listeners): (Vec<_>, Vec<_>) = listening.cloned().partition(peer_id::is_relayed);
        let known = |address: &Multiaddr| listeners.contains(address) || given.contains(address);
        let confirmed = external.filter(|address| !peer_id::is_relayed(address) && !known(address)).cloned().collect();
        Self { listeners, given, confirmed, circuits }
    }

    /// The addresses that lead straight to us.
    pub(super) fn direct(&self) -> impl Iterator<Item = &Multiaddr> {
        self.given.iter().chain(&self.listeners).chain(&self.confirmed)
    }
}
