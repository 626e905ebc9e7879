//! Our end of a connection: notices that its address is no longer ours.
//!
//! A host that changes its network gets a new address, and a TCP connection from the old one hangs for a minute, until
//! its peer is missed. The kernel knows which of our addresses leads to a peer, and answers without sending anything: a
//! changed answer means a dead connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The two ends of a direct connection, as they were when the connection was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalEnd {
    remote: SocketAddr,
    local: IpAddr,
}

impl LocalEnd {
    /// None if no way leads to the remote end.
    pub(crate) fn towards(remote: SocketAddr) -> Option<Self> {
        Some(Self { remote, local: local_towards(remote)? })
    }

    /// True if the peer is now reached from another address. Without any way to the peer, as between two networks, the
    /// old address may still come back.
    pub(crate) fn has_moved(&self) -> bool {
        local_towards(self.remote).is_some_and(|local| local != self.local)
    }
}

/// The address that packets to there leave from.
fn local_towards(remote: SocketAddr) -> Option<IpAddr> {
    let any = if remote.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}
