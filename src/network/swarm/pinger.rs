//! Pings: often to the nodes, seldom to everybody else.
//!
//! A node carries what is relayed and keeps a NAT's mapping open, so its death, or the mapping's, must show within
//! seconds. libp2p's behaviour has one interval for all peers; here each connection has its own, so that a thousand
//! peers that connected at once are not pinged at once.

use std::{
    collections::HashSet,
    ops::Range,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    PeerId, ping,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
    },
};
use rand::Rng;

use crate::network::swarm::wrapped::{NewConnection, Wrap};

/// A node's death must show within seconds.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);
/// Others may be busy, or far away.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Behaviour {
    pings: ping::Behaviour,
    nodes: HashSet<PeerId>,
    nodes_every: Duration,
    others_every: Range<Duration>,
}

impl Behaviour {
    /// Pings `nodes` every few seconds, and each connection to others at a random interval of this range.
    pub(crate) fn new(nodes: HashSet<PeerId>, nodes_every: Duration, others_every: Range<Duration>) -> Self {
        Self { pings: ping::Behaviour::default(), nodes, nodes_every, others_every }
    }

    /// A new connection's handler is made by a behaviour of its own, as libp2p's has one interval for all.
    fn of(&self, peer: PeerId) -> ping::Behaviour {
        let (every, timeout) = match self.nodes.contains(&peer) {
            true => (self.nodes_every, NODE_TIMEOUT),
            false => (rand::rng().random_range(self.others_every.clone()), TIMEOUT),
        };
        ping::Behaviour::new(ping::Config::new().with_interval(every).with_timeout(timeout))
    }
}

impl Wrap for Behaviour {
    type Handler = THandler<ping::Behaviour>;
    type Event = ping::Event;

    fn handler(&mut self, connection: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied> {
        connection.handler_of(&mut self.of(connection.peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.pings.on_swarm_event(event);
    }

    fn on_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<ping::Behaviour>) {
        self.pings.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<ping::Event, THandlerInEvent<ping::Behaviour>>> {
        self.pings.poll(cx)
    }
}
