//! Pings: often to the nodes, seldom to everybody else.
//!
//! A node carries what is relayed and keeps a NAT's mapping open, so its death, or the mapping's, must show within
//! seconds. libp2p's behaviour has one interval for all peers; this one holds two of them and picks by peer.

use std::{
    collections::HashSet,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    ping,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
    },
};

pub(super) struct Behaviour {
    to_nodes: ping::Behaviour,
    to_others: ping::Behaviour,
    nodes: HashSet<PeerId>,
}

impl Behaviour {
    /// Pings `nodes` every few seconds, and others at the interval.
    pub(super) fn new(nodes: HashSet<PeerId>, others_every: Duration) -> Self {
        let pings =
            |every, timeout| ping::Behaviour::new(ping::Config::new().with_interval(every).with_timeout(timeout));
        Self { to_nodes: pings(NODES_EVERY, NODE_TIMEOUT), to_others: pings(others_every, TIMEOUT), nodes }
    }

    fn of(&mut self, peer: PeerId) -> &mut ping::Behaviour {
        if self.nodes.contains(&peer) { &mut self.to_nodes } else { &mut self.to_others }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<ping::Behaviour>;
    type ToSwarm = ping::Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.of(peer).handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.of(peer).handle_established_outbound_connection(id, peer, remote, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.to_nodes.on_swarm_event(event);
        self.to_others.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.of(peer).on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Poll::Ready(action) = self.to_nodes.poll(cx) {
            return Poll::Ready(action);
        }
        self.to_others.poll(cx)
    }
}

const NODES_EVERY: Duration = Duration::from_secs(10);
const NODE_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
