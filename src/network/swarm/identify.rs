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
    Multiaddr, PeerId, identify,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
    },
};

use crate::network::swarm::wrapped::{NewConnection, Wrap};

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

impl Wrap for Behaviour {
    type Handler = THandler<identify::Behaviour>;
    type Event = identify::Event;

    fn handler(&mut self, connection: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied> {
        connection.handler_of(&mut self.inner)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<identify::Behaviour>) {
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<identify::Event, THandlerInEvent<identify::Behaviour>>> {
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
