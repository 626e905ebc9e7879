//! Notices that a connection lies on an address that is no longer ours.
//!
//! A host that changes its network gets a new address, and a TCP connection from the old one hangs until its peer is
//! missed, which takes a minute. Which of our addresses leads to a peer is asked of the kernel, whose answer sends
//! nothing: if it has changed, the connection is dead.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use libp2p::{Multiaddr, swarm::ConnectionId};
use tokio::time::Instant;

use crate::{
    identity::PublicKey,
    network::{links::status::LinkTransport, peer_id},
};

/// Our end of each direct connection.
#[derive(Default)]
pub(crate) struct Sources {
    connections: HashMap<ConnectionId, Source>,
    /// Looks that are still to be taken after a change: an address comes before the route that makes it the one to use.
    looks: u8,
}

/// Where a connection lies.
pub(crate) struct Source {
    pub(crate) peer: PublicKey,
    pub(crate) since: Instant,
    remote: SocketAddr,
    local: IpAddr,
    transport: LinkTransport,
}

impl Sources {
    pub(crate) fn opened(&mut self, id: ConnectionId, peer: PublicKey, remote: &Multiaddr) {
        let transport = LinkTransport::of(remote);
        let Some(remote) = peer_id::socket_addr(remote).filter(|_| !peer_id::is_relayed(remote)) else { return };
        if let Some(local) = local_towards(remote) {
            self.connections.insert(id, Source { peer, since: Instant::now(), remote, local, transport });
        }
    }

    pub(crate) fn closed(&mut self, id: ConnectionId) -> Option<Source> {
        self.connections.remove(&id)
    }

    /// True if the old one is of the same transport, and has been there for a while.
    pub(crate) fn is_older(&self, old: ConnectionId, new: ConnectionId) -> bool {
        let (Some(old), Some(new)) = (self.connections.get(&old), self.connections.get(&new)) else { return false };
        old.transport == new.transport && old.since.elapsed() > A_WHILE
    }

    /// An address of ours came or went.
    pub(crate) fn changed(&mut self) {
        self.looks = LOOKS;
    }

    pub(crate) fn is_due(&self) -> bool {
        self.looks > 0
    }

    /// The connections whose peer is now to be reached from another address. Where there is no way at all, as between two
    /// networks, the old one may still come back.
    pub(crate) fn moved(&mut self) -> Vec<(ConnectionId, PublicKey)> {
        self.looks = self.looks.saturating_sub(1);
        let moved = |source: &Source| local_towards(source.remote).is_some_and(|local| local != source.local);
        self.connections.iter().filter(|(_, source)| moved(source)).map(|(id, source)| (*id, source.peer)).collect()
    }
}

/// The address that packets to there leave from.
fn local_towards(remote: SocketAddr) -> Option<IpAddr> {
    let any = if remote.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// Longer than it takes to dial somebody in several ways at once.
const A_WHILE: Duration = Duration::from_secs(5);
/// One a second.
const LOOKS: u8 = 10;
