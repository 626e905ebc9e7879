//! Connections per source address, which `libp2p-connection-limits` does not count.
//!
//! Refused before any handshake work. Private and loopback sources are exempt: there, one address is often a whole
//! office behind a router of ours, and a per-address limit cuts off the fleet it should protect.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
};

use super::peer_id;

/// Denies inbound connections beyond a number per source address (IPv6: per /64).
pub(super) struct PerAddress {
    limit: usize,
    /// Sources of the inbound connections that are there or on their way.
    sources: HashMap<ConnectionId, IpAddr>,
    counts: HashMap<IpAddr, usize>,
}

#[derive(Debug, thiserror::Error)]
#[error("{ip} has {limit} connections already")]
struct TooMany {
    ip: IpAddr,
    limit: usize,
}

impl PerAddress {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, sources: HashMap::new(), counts: HashMap::new() }
    }

    fn admit(&mut self, id: ConnectionId, remote: &Multiaddr) -> Result<(), TooMany> {
        if peer_id::is_private(remote) {
            return Ok(());
        }
        let Some(ip) = peer_id::ip(remote).map(source) else { return Ok(()) };
        let count = self.counts.entry(ip).or_default();
        if *count >= self.limit {
            return Err(TooMany { ip, limit: self.limit });
        }
        *count += 1;
        self.sources.insert(id, ip);
        Ok(())
    }

    fn forget(&mut self, id: ConnectionId) {
        let Some(ip) = self.sources.remove(&id) else { return };
        if let Some(count) = self.counts.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&ip);
            }
        }
    }
}

/// Whoever has an IPv6 address usually has its whole /64.
fn source(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

impl NetworkBehaviour for PerAddress {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.admit(id, remote).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.forget(closed.connection_id),
            FromSwarm::ListenFailure(failure) => self.forget(failure.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().expect("multiaddr")
    }

    #[test]
    fn the_connection_past_the_limit_is_refused_until_one_ends() {
        let mut limits = PerAddress::new(2);
        let remote = addr("/ip4/203.0.113.7/tcp/1");
        let ids = [1, 2, 3].map(ConnectionId::new_unchecked);
        assert!(limits.admit(ids[0], &remote).is_ok() && limits.admit(ids[1], &remote).is_ok());
        assert!(limits.admit(ids[2], &remote).is_err());
        assert!(limits.admit(ids[2], &addr("/ip4/203.0.113.8/tcp/1")).is_ok());
        limits.forget(ids[0]);
        assert!(limits.admit(ids[0], &remote).is_ok());
    }

    #[test]
    fn addresses_of_one_v6_network_are_counted_together() {
        let mut limits = PerAddress::new(1);
        assert!(limits.admit(ConnectionId::new_unchecked(1), &addr("/ip6/2001:db8::1/tcp/1")).is_ok());
        assert!(limits.admit(ConnectionId::new_unchecked(2), &addr("/ip6/2001:db8::2/tcp/1")).is_err());
    }

    #[test]
    fn private_and_loopback_sources_are_not_counted() {
        let mut limits = PerAddress::new(0);
        for remote in ["/ip4/127.0.0.1/tcp/1", "/ip4/10.1.2.3/udp/1/quic-v1", "/ip6/::1/tcp/1", "/ip6/fd00::1/tcp/1"] {
            assert!(limits.admit(ConnectionId::new_unchecked(1), &addr(remote)).is_ok(), "{remote}");
        }
        assert!(limits.counts.is_empty());
    }
}
