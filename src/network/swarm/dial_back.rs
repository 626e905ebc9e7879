//! Has our own nodes dial us back, to learn whether we can be reached (AutoNAT v2); nobody else is asked or may answer.
//!
//! libp2p's behaviour takes a dial-back from every peer that connects. A dial-back that ends too early is read again and
//! again without a pause, and keeps a thread busy for 5 s. So strangers' connections do not get to it.

use std::{
    collections::HashSet,
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    autonat::v2::client::{self, Event},
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, derive_prelude::Either, dummy,
    },
};

pub(crate) struct Behaviour {
    asks: client::Behaviour,
    nodes: HashSet<PeerId>,
}

impl Behaviour {
    pub(crate) fn new(nodes: HashSet<PeerId>) -> Self {
        Self { asks: client::Behaviour::default(), nodes }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Either<THandler<client::Behaviour>, dummy::ConnectionHandler>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.nodes.contains(&peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.asks.handle_established_inbound_connection(id, peer, local, remote).map(Either::Left)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.nodes.contains(&peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.asks.handle_established_outbound_connection(id, peer, remote, role, port).map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.asks.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(event) => self.asks.on_connection_handler_event(peer, id, event),
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.asks.poll(cx).map(|action| action.map_in(Either::<_, Infallible>::Left))
    }
}
