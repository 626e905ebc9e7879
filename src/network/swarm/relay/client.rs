//! libp2p's client of relays, able to reserve on any connection, and to take many circuits at once.
//!
//! libp2p hands on one inbound circuit each time that something happens on the connection to the relay: the others of a crowd
//! wait, longer than those that asked for them. Here it hands on all: see [`Handler`].
//!
//! libp2p reserves on its first connection to a relay, whatever others there are. To libp2p's client, each connection with a
//! reservation is here the connection to a relay of its own: an *alias* with a random name, which nothing outside this module
//! and the reservations' listeners sees.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Poll, Waker},
};

#[cfg(feature = "scraper")]
use libp2p::{
    Multiaddr,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::behaviour::ConnectionEstablished,
};
use libp2p::{
    PeerId,
    relay::client,
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ConnectionClosed,
        handler::ConnectionEvent,
    },
};

use crate::network::swarm::wrapped::{NewConnection, Wrap};

/// Polls of libp2p's handler in one of ours. Two do, unless the listener takes a circuit between them.
const POLLS: usize = 4;

type Inner = client::Behaviour;
type Action = ToSwarm<client::Event, THandlerInEvent<Inner>>;

pub(crate) struct Behaviour {
    inner: Inner,
    aliases: HashMap<ConnectionId, Alias>,
    actions: VecDeque<Action>,
}

struct Alias {
    name: PeerId,
    relay: PeerId,
}

impl Behaviour {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner, aliases: HashMap::new(), actions: VecDeque::new() }
    }

    /// The alias of the relay at the other end of an open connection. What reserves at the alias reserves on that connection.
    #[cfg(feature = "scraper")]
    pub(crate) fn alias(&mut self, relay: PeerId, id: ConnectionId, at: Multiaddr) -> PeerId {
        let Self { inner, aliases, .. } = self;
        let alias = aliases.entry(id).or_insert_with(|| {
            let name = PeerId::random();
            let (role_override, port_use) = (Endpoint::Dialer, PortUse::Reuse);
            inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: name,
                connection_id: id,
                endpoint: &ConnectedPoint::Dialer { address: at, role_override, port_use },
                failed_addresses: &[],
                other_established: 0,
            }));
            Alias { name, relay }
        });
        alias.name
    }

    /// Ends the connection to the alias with the one to the relay.
    fn on_closed(&mut self, closed: ConnectionClosed<'_>) {
        let Some(alias) = self.aliases.get(&closed.connection_id) else { return };
        self.inner.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed { peer_id: alias.name, ..closed }));
        // What the alias still has to do with. The swarm polls us after each event, and libp2p's client gets its real waker then.
        while let Poll::Ready(action) = self.poll_inner(&mut Context::from_waker(Waker::noop())) {
            self.actions.push_back(action);
        }
        self.aliases.remove(&closed.connection_id);
    }

    /// The relay behind a name, if that is an alias.
    fn relay(&self, name: &PeerId) -> Option<PeerId> {
        self.aliases.values().find(|alias| alias.name == *name).map(|alias| alias.relay)
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Action> {
        loop {
            return match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event }) => {
                    let peer_id = self.relay(&peer_id).unwrap_or(peer_id);
                    Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event })
                }
                // They contain the alias. The listener has the addresses as the relay knows them.
                Poll::Ready(ToSwarm::ExternalAddrConfirmed(_) | ToSwarm::ExternalAddrExpired(_)) => continue,
                other => other,
            };
        }
    }
}

impl Wrap for Behaviour {
    type Handler = Handler<THandler<Inner>>;
    /// The relay in it is the alias, where the connection has one.
    type Event = client::Event;

    fn handler(&mut self, connection: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied> {
        connection.handler_of(&mut self.inner).map(Handler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
        if let FromSwarm::ConnectionClosed(closed) = event {
            self.on_closed(closed);
        }
    }

    fn on_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Inner>) {
        let name = self.aliases.get(&id).map_or(peer, |alias| alias.name);
        self.inner.on_connection_handler_event(name, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Action> {
        match self.actions.pop_front() {
            Some(action) => Poll::Ready(action),
            None => self.poll_inner(cx),
        }
    }
}

/// libp2p's handler, polled until its listener is busy: then it is woken for the next circuit.
pub(crate) struct Handler<H>(H);

impl<H: ConnectionHandler> ConnectionHandler for Handler<H> {
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = H::InboundProtocol;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = H::InboundOpenInfo;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<H::InboundProtocol, H::InboundOpenInfo> {
        self.0.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.0.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<H::OutboundProtocol, H::OutboundOpenInfo, H::ToBehaviour>> {
        (0..POLLS).map(|_| self.0.poll(cx)).find(Poll::is_ready).unwrap_or(Poll::Pending)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<H::ToBehaviour>> {
        self.0.poll_close(cx)
    }

    fn on_behaviour_event(&mut self, event: H::FromBehaviour) {
        self.0.on_behaviour_event(event);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, H::InboundProtocol, H::OutboundProtocol, H::InboundOpenInfo, H::OutboundOpenInfo>,
    ) {
        self.0.on_connection_event(event);
    }
}
