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
    PeerId,
    autonat::v2::client::{self, Event},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, derive_prelude::Either, dummy,
    },
};

use crate::network::swarm::wrapped::{NewConnection, Wrap};

pub(crate) struct Behaviour {
    asks: client::Behaviour,
    nodes: HashSet<PeerId>,
}

impl Behaviour {
    pub(crate) fn new(nodes: HashSet<PeerId>) -> Self {
        Self { asks: client::Behaviour::default(), nodes }
    }
}

impl Wrap for Behaviour {
    type Handler = Either<THandler<client::Behaviour>, dummy::ConnectionHandler>;
    type Event = Event;

    fn handler(&mut self, connection: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied> {
        if !self.nodes.contains(&connection.peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        connection.handler_of(&mut self.asks).map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.asks.on_swarm_event(event);
    }

    fn on_handler_event(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        event: Either<THandlerOutEvent<client::Behaviour>, Infallible>,
    ) {
        match event {
            Either::Left(event) => self.asks.on_connection_handler_event(peer, id, event),
            Either::Right(never) => match never {},
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Event, Either<THandlerInEvent<client::Behaviour>, Infallible>>> {
        self.asks.poll(cx).map(|action| action.map_in(Either::Left))
    }
}
