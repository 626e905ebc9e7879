//! *identify*: who a peer is, and where the peer sees us.
//!
//! libp2p's behaviour accepts every observed address, from any peer, and makes the address a candidate of ours: to be
//! dialled back at, and to be punched at. The behaviour also replaces the port that was seen by our listen port,
//! so that a NAT which changes ports is never punched, although its mapping is the same for all. Here libp2p's candidates
//! are dropped; the driver chooses which reports count, and adds their addresses.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    identify,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
    },
};

pub(crate) struct Behaviour {
    inner: identify::Behaviour,
    /// Addresses that become candidates of ours when the swarm is polled next.
    candidates: VecDeque<Multiaddr>,
}

impl Behaviour {
    pub(crate) fn new(config: identify::Config) -> Self {
        Self { inner: identify::Behaviour::new(config), candidates: VecDeque::new() }
    }

    /// Adds an external-address candidate, which others are to confirm.
    pub(crate) fn add_candidate(&mut self, address: Multiaddr) {
        self.candidates.push_back(address);
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<identify::Behaviour>;
    type ToSwarm = identify::Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(id, peer, remote, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(address) = self.candidates.pop_front() {
            return Poll::Ready(ToSwarm::NewExternalAddrCandidate(address));
        }
        loop {
            match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::NewExternalAddrCandidate(_)) => {}
                polled => return polled,
            }
        }
    }
}
