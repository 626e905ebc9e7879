//! Behaviours that make a connection's handler in one method, whoever opened the connection. libp2p has one for each side.

use std::task::{Context, Poll};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, derive_prelude::Either,
    },
};

/// Names a type that libp2p has on one side of an [`Either`] and does not export.
pub(crate) trait LeftOf {
    type Left;
}

impl<L, R> LeftOf for Either<L, R> {
    type Left = L;
}

/// A connection whose handshake has ended.
pub(crate) struct NewConnection<'a> {
    pub(crate) id: ConnectionId,
    pub(crate) peer: PeerId,
    side: Side<'a>,
}

#[derive(Clone, Copy)]
enum Side<'a> {
    Inbound(&'a Multiaddr, &'a Multiaddr),
    Outbound(&'a Multiaddr, Endpoint, PortUse),
}

impl NewConnection<'_> {
    pub(crate) fn is_inbound(&self) -> bool {
        matches!(self.side, Side::Inbound(..))
    }

    /// The other end's address, if the other end opened the connection.
    pub(crate) fn comes_from(&self) -> Option<&Multiaddr> {
        match self.side {
            Side::Inbound(_, remote) => Some(remote),
            Side::Outbound(..) => None,
        }
    }

    /// The handler that libp2p's behaviour makes.
    pub(crate) fn handler_of<B: NetworkBehaviour>(&self, inner: &mut B) -> Result<THandler<B>, ConnectionDenied> {
        let Self { id, peer, side } = *self;
        match side {
            Side::Inbound(local, remote) => inner.handle_established_inbound_connection(id, peer, local, remote),
            Side::Outbound(remote, role, port) => {
                inner.handle_established_outbound_connection(id, peer, remote, role, port)
            }
        }
    }
}

/// What a behaviour of ours does; [`Wrapped`] makes it one of libp2p's.
pub(crate) trait Wrap: Sized + 'static {
    type Handler: ConnectionHandler;
    type Event: Send + 'static;

    fn on_pending_inbound(&mut self, _: ConnectionId, _remote: &Multiaddr) -> Result<(), ConnectionDenied> {
        Ok(())
    }

    /// Asked before a dial to the addresses that it names.
    fn on_pending_outbound(&mut self, _: ConnectionId, _addresses: &[Multiaddr]) -> Result<(), ConnectionDenied> {
        Ok(())
    }

    fn handler(&mut self, connection: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied>;

    fn on_swarm_event(&mut self, event: FromSwarm<'_>);

    fn on_handler_event(&mut self, _: PeerId, _: ConnectionId, _: <Self::Handler as ConnectionHandler>::ToBehaviour) {}

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::Event, THandlerInEvent<Wrapped<Self>>>> {
        Poll::Pending
    }
}

pub(crate) struct Wrapped<T>(pub(crate) T);

impl<T: Wrap> NetworkBehaviour for Wrapped<T> {
    type ConnectionHandler = T::Handler;
    type ToSwarm = T::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.0.on_pending_inbound(id, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.0.on_pending_outbound(id, addresses).map(|()| Vec::new())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<T::Handler, ConnectionDenied> {
        self.0.handler(NewConnection { id, peer, side: Side::Inbound(local, remote) })
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<T::Handler, ConnectionDenied> {
        self.0.handler(NewConnection { id, peer, side: Side::Outbound(remote, role, port) })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.0.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.0.on_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<T::Event, THandlerInEvent<Self>>> {
        self.0.poll(cx)
    }
}
