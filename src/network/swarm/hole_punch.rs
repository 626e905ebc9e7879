//! Hole punching (DCUtR), at public addresses only where a stranger names them.
//!
//! The peer at the other end of a circuit names the addresses that are dialled. libp2p dials them all: anybody could
//! have a scraper dial into the scraper's own network. Here a peer that has proved nothing has only its public addresses
//! dialled; a peer whose links we keep has the private ones dialled too, as a fleet within one company needs.

use std::task::{Context, Poll};

use libp2p::{
    Multiaddr, PeerId, dcutr,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, derive_prelude::Either,
    },
};

use crate::network::{
    address,
    links::table::Links,
    peer_id,
    swarm::wrapped::{LeftOf, NewConnection, Wrap},
};

pub(crate) struct Behaviour {
    inner: dcutr::Behaviour,
    links: Links,
}

impl Behaviour {
    pub(crate) fn new(local: PeerId, links: Links) -> Self {
        Self { inner: dcutr::Behaviour::new(local), links }
    }

    /// Drops the addresses that the peer may not have us dial.
    fn choose(&self, peer: &PeerId, named: &mut Vec<Multiaddr>) {
        let key = peer_id::public_key(peer);
        let known = key.as_ref().is_some_and(|key| self.links.is_kept(key));
        let relay = key.as_ref().and_then(|key| self.links.address(key));
        let all = named.len();
        named.retain(|address| may_dial(address, known, relay.as_ref()));
        if named.len() < all {
            tracing::debug!(%peer, known, left = ?named, all, "some addresses of a hole punch are not dialled");
        }
    }
}

/// `known` is a peer that has proved a secret, or our scraper. This host's own addresses are dialled only if the relay is
/// here, too.
fn may_dial(address: &Multiaddr, known: bool, relay: Option<&Multiaddr>) -> bool {
    let address = &address::without_peer(address);
    let is_loopback = |address: &Multiaddr| address::ip(address).is_some_and(|ip| ip.to_canonical().is_loopback());
    address::is_plain(address)
        && (known || !address::is_private(address))
        && (!is_loopback(address) || relay.is_some_and(is_loopback))
}

type Negotiated = <THandlerOutEvent<dcutr::Behaviour> as LeftOf>::Left;

impl Wrap for Behaviour {
    type Handler = THandler<dcutr::Behaviour>;
    type Event = dcutr::Event;

    fn handler(&mut self, connection: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied> {
        connection.handler_of(&mut self.inner)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_handler_event(&mut self, peer: PeerId, id: ConnectionId, mut event: THandlerOutEvent<dcutr::Behaviour>) {
        if let Either::Left(
            Negotiated::InboundConnectNegotiated { remote_addrs }
            | Negotiated::OutboundConnectNegotiated { remote_addrs },
        ) = &mut event
        {
            self.choose(&peer, remote_addrs);
        }
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<dcutr::Event, THandlerInEvent<dcutr::Behaviour>>> {
        self.inner.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::multiaddr::Protocol;

    use super::*;

    #[test]
    fn a_stranger_has_public_addresses_dialled_and_no_others() {
        let may = |text: &str, known, relay: &str| {
            let parse = |text: &str| text.parse::<Multiaddr>().expect("multiaddr");
            // So libp2p names its addresses.
            may_dial(&parse(text).with(Protocol::P2p(PeerId::random())), known, Some(&parse(relay)))
        };
        let (public, here) = ("/ip4/192.0.2.1/tcp/1", "/ip4/127.0.0.1/tcp/1");
        assert!(may("/ip4/192.0.2.9/udp/7/quic-v1", false, public) && may("/ip6/2001:db8::1/tcp/7", false, public));
        for private in
            ["/ip4/10.0.0.1/tcp/22", "/ip4/169.254.169.254/tcp/80", "/ip4/100.64.0.1/tcp/1", "/ip6/fd00::1/tcp/1"]
        {
            assert!(!may(private, false, public), "{private}");
            assert!(may(private, true, public), "{private}");
        }
        for own in ["/ip4/127.0.0.1/tcp/22", "/ip6/::1/tcp/22", "/ip6/::ffff:127.0.0.1/tcp/22"] {
            assert!(!may(own, true, public) && !may(own, false, here), "{own}");
        }
        assert!(may("/ip4/127.0.0.1/tcp/22", true, here));
        for odd in ["/dns/intranet/tcp/80", "/ip4/224.0.0.1/tcp/1", "/ip4/0.0.0.0/tcp/1", "/ip4/192.0.2.1/tcp/80/ws"] {
            assert!(!may(odd, true, here), "{odd}");
        }
    }
}
