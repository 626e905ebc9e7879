//! Connections as they come and go, and those that are closed although nothing tells that they are dead: what a peer
//! that came back has left behind, what lies on an address that we no longer have, what nobody needs.

use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, transport::PortUse},
    identify,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::time::{Duration, Instant};

use crate::{
    identity::PublicKey,
    network::{config::NetworkRole, links::status::LinkTransport, peer_id, swarm::driver::Driver},
};

impl Driver {
    pub(crate) fn on_opened(&mut self, id: ConnectionId, peer: PeerId, endpoint: &ConnectedPoint) {
        // From the port that we listen on: from another we are seen at one that means nothing to anybody.
        let reused = matches!(endpoint, ConnectedPoint::Dialer { port_use: PortUse::Reuse, .. });
        if reused && !endpoint.is_relayed() {
            self.dialled.insert(id);
        }
        let Some(peer) = peer_id::public_key(&peer) else { return };
        self.sources.opened(id, peer, endpoint.get_remote_address());
        if endpoint.is_listener() {
            if endpoint.is_relayed() {
                self.circuits.insert(id);
            }
            self.close_older(id, peer);
            self.strangers.insert(id, (peer, Instant::now()));
        }
    }

    pub(crate) fn on_closed(&mut self, id: ConnectionId, endpoint: &ConnectedPoint, broken: bool) {
        self.strangers.remove(&id);
        self.dialled.remove(&id);
        self.chosen.remove(&id);
        self.circuits.remove(&id);
        // A process that dies takes all its TCP connections along: while one is left, this one was closed on purpose. So may
        // the last be: one that a side has too many of ends as soon as it is there, and a node closes what a passer-by
        // leaves idle.
        if let Some(source) = self.sources.closed(id)
            && broken
            && peer_id::is_tcp(endpoint.get_remote_address())
            && source.since.elapsed() > SETTLED
            && self.links.is_kept(&source.peer)
            && self.links.transports(&source.peer).iter().all(|left| *left == LinkTransport::Quic)
        {
            self.close_others(source.peer);
        }
    }

    /// Closes a connection, at once for everybody here: a dead one cannot be closed cleanly, as that waits for the peer.
    pub(crate) fn give_up(&mut self, peer: PublicKey, id: ConnectionId, why: &str) {
        self.links.remove(peer, id, why);
        self.swarm.close_connection(id);
    }

    /// A ping was not answered.
    pub(crate) fn give_up_silent(&mut self, peer: PublicKey, id: ConnectionId, why: &str) {
        self.give_up(peer, id, why);
        self.close_carried(peer);
    }

    /// Somebody found out that nothing is answered over a connection. Others to the same peer are as dead, unless this one
    /// was a circuit.
    pub(crate) fn disconnect(&mut self, peer: PublicKey, id: ConnectionId) {
        let direct = self.links.direct(&peer).contains(&id);
        self.give_up(peer, id, "it answered nothing");
        if direct {
            self.close_others(peer);
        }
        self.close_carried(peer);
    }

    /// Circuits end with the last connection to the relay that carried them: they would otherwise be missed one by one.
    fn close_carried(&mut self, relay: PublicKey) {
        if self.links.direct(&relay).is_empty() {
            for (peer, circuit) in self.links.through(&relay) {
                self.give_up(peer, circuit, "the relay has fallen silent");
            }
        }
    }

    pub(crate) fn close_superfluous(&mut self) {
        for (peer, id) in self.links.superfluous() {
            self.give_up(peer, id, "there is a better one");
        }
    }

    /// Whoever comes through a relay may have a public address: then there is no hole to punch, and a dial from here, where
    /// libp2p has both ends dial, gets through whatever is before us. (The first step of DCUtR, which libp2p leaves out.)
    pub(crate) fn dial_straight(&mut self, circuit: ConnectionId, peer: PeerId, info: &identify::Info) {
        let punches = self.swarm.behaviour().dcutr.is_enabled();
        // A node that dials us back comes through relays, too.
        let linked = peer_id::public_key(&peer).is_none_or(|key| !self.links.direct(&key).is_empty());
        if !self.circuits.remove(&circuit) || !punches || linked {
            return;
        }
        let public = |address: &&Multiaddr| peer_id::is_plain(address) && !peer_id::is_private(address);
        let places: Vec<_> = info.listen_addrs.iter().filter(public).take(MAX_PLACES).cloned().collect();
        if !places.is_empty() {
            tracing::debug!(%peer, ?places, "dialling a relayed peer straight");
            // From another port than the hole punch that goes on meanwhile. That also marks a stranger's word (`tcp.rs`).
            let options = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(places);
            let options = options.allocate_new_port().build();
            if let Err(error) = self.swarm.dial(options) {
                tracing::debug!(%peer, %error, "cannot dial a relayed peer at its public address");
            }
        }
    }

    /// A hole punch leaves several connections, and they die together. TCP tells at once that a process is gone, QUIC only
    /// after a long silence in which a circuit or a pull may get lost. A peer that is there after all is soon linked again.
    pub(crate) fn close_others(&mut self, peer: PublicKey) {
        for id in self.links.direct(&peer) {
            tracing::debug!(%peer, "a connection broke: closing another one to the same peer");
            self.give_up(peer, id, "another connection to it broke");
        }
    }

    /// Whoever dials a node again has lost the connection that it had. A relay would go on to hand it circuits over that
    /// one, for as long as the reservation runs.
    fn close_older(&mut self, new: ConnectionId, peer: PublicKey) {
        if self.role != NetworkRole::Node {
            return;
        }
        let direct = self.links.direct(&peer).into_iter();
        let older: Vec<_> = direct.filter(|old| self.sources.is_older(*old, new)).collect();
        for id in older {
            tracing::debug!(%peer, "the peer is here again: closing its older connection");
            self.give_up(peer, id, "it connected anew");
        }
    }

    /// Connections from an address that we no longer have are dead, and nothing else tells so for a long time.
    pub(crate) fn close_moved(&mut self) {
        for (id, peer) in self.sources.moved() {
            tracing::debug!(%peer, "our address has changed: closing a connection");
            self.give_up(peer, id, "our address has changed");
            self.sources.closed(id);
        }
    }

    /// An idle stranger is closed by the swarm; one that keeps busy without ever proving anything, here. So is what a node
    /// has opened besides the link that we made, to see whether it can.
    pub(crate) fn close_strangers(&mut self) {
        let kept = self.links.kept();
        let most = if self.role == NetworkRole::Node { STRANGER_AT_A_NODE } else { STRANGER };
        let due: Vec<(ConnectionId, PublicKey)> = self
            .strangers
            .iter()
            .filter(|(_, (peer, since))| since.elapsed() > most && !kept.contains(peer) && !self.is_our_only_way(peer))
            .map(|(id, (peer, _))| (*id, *peer))
            .collect();
        for (id, peer) in due {
            tracing::debug!(%peer, "closing a connection that proved nothing");
            self.give_up(peer, id, "it proved nothing");
        }
    }

    fn is_our_only_way(&self, node: &PublicKey) -> bool {
        self.links.is_kept(node) && !self.links.direct(node).iter().any(|id| self.dialled.contains(id))
    }
}

/// Of a peer's public addresses, at its word.
const MAX_PLACES: usize = 4;
const SETTLED: Duration = Duration::from_secs(2);
/// How long somebody may be connected to a scraper without registering.
const STRANGER: Duration = Duration::from_secs(30);
/// Those who look somebody up need a moment, those who announce or are nodes are kept.
const STRANGER_AT_A_NODE: Duration = Duration::from_secs(120);
