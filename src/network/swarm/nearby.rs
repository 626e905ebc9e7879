//! Peers in the local network, by mDNS.
//!
//! Anybody there can announce anything: an address is tried if it is a host's own TCP or QUIC address (a name would be
//! looked up, a URL asked), and the peer that answers must prove its key. libp2p's behaviour remembers all announcements,
//! and hands them to everything that dials; this one keeps them to itself, within bounds. Clients listen only: nobody
//! looks for them.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, mdns,
    swarm::{ConnectionDenied, FromSwarm, NetworkBehaviour, ToSwarm, dummy},
};
use tokio::sync::watch;

use crate::{
    identity::PublicKey,
    network::{
        address,
        config::NetworkRole,
        links::table::Links,
        peer_id,
        swarm::wrapped::{NewConnection, Wrap},
    },
};

/// A peer that starts later announces itself; the query is for those that were missed.
const QUERY_EVERY: Duration = Duration::from_secs(60);
/// Peers in the local network that are remembered: more than one network has scrapers.
const MAX_PEERS: usize = 256;
/// Addresses of one peer that are remembered.
const MAX_ADDRESSES: usize = 8;
/// Addresses of all libp2p peers in the network, whatever they are. Each new one is compared with all others.
const MAX_DISCOVERED: usize = 4096;

/// The addresses that peers in the local network announce.
pub(crate) type Nearby = HashMap<PublicKey, Vec<Multiaddr>>;

pub(crate) struct Behaviour {
    /// None once more was announced than in any honest network.
    mdns: Option<mdns::tokio::Behaviour>,
    announces: bool,
    found: Arc<watch::Sender<Nearby>>,
    links: Links,
}

impl Behaviour {
    pub(crate) fn new(
        local: PeerId,
        role: NetworkRole,
        found: Arc<watch::Sender<Nearby>>,
        links: Links,
    ) -> io::Result<Self> {
        let config = mdns::Config { query_interval: QUERY_EVERY, ..mdns::Config::default() };
        let announces = role != NetworkRole::Client;
        Ok(Self { mdns: Some(mdns::tokio::Behaviour::new(config, local)?), announces, found, links })
    }

    fn on_event(&self, event: mdns::Event) {
        match event {
            mdns::Event::Discovered(found) => found.iter().for_each(|(peer, address)| self.remember(peer, address)),
            mdns::Event::Expired(gone) => gone.iter().for_each(|(peer, address)| self.forget(peer, address)),
        }
    }

    fn remember(&self, peer: &PeerId, address: &Multiaddr) {
        let address = address::without_peer(address);
        let Some(key) = peer_id::public_key(peer).filter(|_| address::is_plain(&address)) else { return };
        // There is always room for a peer that we want to reach.
        let wanted = self.links.is_kept(&key);
        self.found.send_if_modified(|nearby| {
            if nearby.len() >= MAX_PEERS && !wanted && !nearby.contains_key(&key) {
                return false;
            }
            let addresses = nearby.entry(key).or_default();
            if addresses.len() == MAX_ADDRESSES {
                addresses.remove(0); // the newest is the likeliest
            }
            tracing::debug!(peer = %key, address = %address::display(&address), "a peer is nearby");
            addresses.push(address);
            true
        });
    }

    fn forget(&self, peer: &PeerId, address: &Multiaddr) {
        let address = address::without_peer(address);
        let Some(key) = peer_id::public_key(peer) else { return };
        self.found.send_modify(|nearby| {
            if let Some(addresses) = nearby.get_mut(&key) {
                addresses.retain(|known| *known != address);
            }
            nearby.retain(|_, addresses| !addresses.is_empty());
        });
    }
}

impl Wrap for Behaviour {
    type Handler = dummy::ConnectionHandler;
    type Event = Infallible;

    fn handler(&mut self, _: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let Some(mdns) = self.mdns.as_mut().filter(|_| self.announces) {
            mdns.on_swarm_event(event);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Infallible>> {
        while let Some(mdns) = &mut self.mdns {
            let Poll::Ready(action) = mdns.poll(cx) else { break };
            if mdns.discovered_nodes().len() > MAX_DISCOVERED {
                tracing::warn!(
                    limit = MAX_DISCOVERED,
                    "too many addresses are announced by mDNS here: no longer listening to it"
                );
                self.mdns = None;
            }
            if let ToSwarm::GenerateEvent(event) = action {
                self.on_event(event);
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use libp2p::multiaddr::Protocol;

    use super::*;
    use crate::identity::KeyPair;

    #[tokio::test]
    async fn a_flood_does_not_crowd_out_who_is_wanted() {
        let (found, links) = (Arc::new(watch::Sender::default()), Links::new());
        let nearby = Behaviour::new(PeerId::random(), NetworkRole::Client, Arc::clone(&found), links.clone());
        let nearby = nearby.expect("starts");
        let announce = |key: &PublicKey, port: u16| {
            let peer = peer_id::peer_id(key);
            let address = Multiaddr::from(std::net::Ipv4Addr::new(192, 0, 2, 1)).with(Protocol::Tcp(port));
            nearby.on_event(mdns::Event::Discovered(vec![(peer, address.with(Protocol::P2p(peer)))]));
        };
        for _ in 0..=MAX_PEERS {
            announce(&KeyPair::generate().public(), 1);
        }
        assert_eq!(found.borrow().len(), MAX_PEERS);
        let wanted = KeyPair::generate().public();
        links.keep(wanted);
        (1..=20).for_each(|port| announce(&wanted, port));
        let addresses = found.borrow().get(&wanted).cloned().expect("found");
        assert_eq!(addresses.len(), MAX_ADDRESSES);
        assert_eq!(addresses.last().map(Multiaddr::to_string).as_deref(), Some("/ip4/192.0.2.1/tcp/20"));

        let all = addresses.iter().map(|address| (peer_id::peer_id(&wanted), address.clone())).collect();
        nearby.on_event(mdns::Event::Expired(all));
        assert!(!found.borrow().contains_key(&wanted));
    }

    #[tokio::test]
    async fn nobody_nearby_can_have_names_looked_up_or_urls_asked() {
        let found = Arc::new(watch::Sender::default());
        let nearby = Behaviour::new(PeerId::random(), NetworkRole::Client, Arc::clone(&found), Links::new());
        let nearby = nearby.expect("starts");
        let peer = peer_id::peer_id(&KeyPair::generate().public());
        let plain = "/ip4/192.0.2.1/udp/1/quic-v1";
        for address in [
            "/dns/h.example/tcp/1",
            "/ip4/192.0.2.1/tcp/80/x-parity-ws/%2Fadmin",
            "/ip4/192.0.2.1/tcp/443/tls/ws",
            plain,
        ] {
            let address = address.parse().expect("a multiaddr");
            nearby.on_event(mdns::Event::Discovered(vec![(peer, address)]));
        }
        let addresses: Vec<String> = found.borrow().values().flatten().map(ToString::to_string).collect();
        assert_eq!(addresses, [plain]);
    }
}
