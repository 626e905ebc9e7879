//! Our end of a connection: notices that its address is no longer ours.
//!
//! A host that changes its network gets a new address, and a TCP connection from the old one hangs for a minute, until
//! its peer is missed. The kernel knows our addresses, and answers without sending anything. An address that is still ours is no
//! reason to close what works, although another one is preferred by now: those of IPv6 take turns (RFC 8981).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// The two ends of a direct connection, as they were when the connection was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalEnd {
    remote: SocketAddr,
    local: IpAddr,
}

impl LocalEnd {
    /// With our address, if it is `known`, or else with the one that leads to the remote end. None if no way leads there.
    pub(crate) fn new(known: Option<SocketAddr>, remote: SocketAddr) -> Option<Self> {
        let known = known.map(|known| known.ip()).filter(|ip| !ip.is_unspecified());
        Some(Self { remote, local: known.or_else(|| local_towards(remote))? })
    }

    /// True if our address is none of this host's any more, and the peer is reached from another one. Without any way to the
    /// peer, as between two networks, the old address may still come back.
    pub(crate) fn has_moved(&self) -> bool {
        !is_ours(self.local) && local_towards(self.remote).is_some()
    }
}

/// True unless the kernel says otherwise.
fn is_ours(ip: IpAddr) -> bool {
    !matches!(UdpSocket::bind((ip, 0)), Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// The address that packets to there leave from.
fn local_towards(remote: SocketAddr) -> Option<IpAddr> {
    let any = if remote.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_host_has_not_moved_whatever_leads_to_the_peer() {
        let at = |ip: [u8; 4]| SocketAddr::from((ip, 1));
        let end = |known, remote| LocalEnd::new(known, remote).expect("a way");
        assert!(!end(None, at([127, 0, 0, 1])).has_moved());
        assert!(!end(Some(at([0, 0, 0, 0])), at([127, 0, 0, 1])).has_moved());
        assert!(!end(Some(at([127, 0, 0, 9])), at([127, 0, 0, 1])).has_moved(), "ours, and not preferred");
        assert!(end(Some(at([192, 0, 2, 7])), at([127, 0, 0, 1])).has_moved(), "not ours");
    }
}
