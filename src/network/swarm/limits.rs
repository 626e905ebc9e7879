//! Established connections: how many there are in all, of each peer, and from each source address.
//!
//! libp2p's own limits refuse the newcomer, and do not know who the peers are: strangers would keep the fleet out. Private
//! and loopback addresses may have more connections: there, one address is often a whole office behind a router of ours.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

#[cfg(any(feature = "scraper", feature = "node"))]
use libp2p::memory_connection_limits::MemoryUsageLimitExceeded;
use libp2p::{
    Multiaddr, PeerId,
    swarm::{CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, ListenError, THandlerInEvent, ToSwarm, dummy},
};

#[cfg(any(feature = "scraper", feature = "node"))]
use crate::{network::error::innermost, telemetry::LogPace};
use crate::{
    network::{
        address,
        config::{NetworkLimits, NetworkRole},
        links::{
            proved::ProvedNetworks,
            table::{
                Links,
                room::{Newcomer, Room},
            },
        },
        peer_id,
        swarm::wrapped::{NewConnection, Wrap, Wrapped},
        transport::{inbound::InboundCounters, refusal::Gate},
    },
    telemetry::{Limit, Refusals},
};

/// Finds room for each connection, or denies it.
pub(crate) struct Limits {
    limits: NetworkLimits,
    /// True if peers prove a secret, so that strangers are those who have not registered yet. At a node all are strangers,
    /// and those who came first stay.
    registers: bool,
    links: Links,
    proved: Arc<ProvedNetworks>,
    counters: Arc<InboundCounters>,
    refusals: Arc<Refusals>,
    /// Connections that made room, and have to be closed.
    evicted: VecDeque<(PeerId, ConnectionId)>,
    #[cfg(any(feature = "scraper", feature = "node"))]
    memory_log: LogPace,
}

/// Has TCP connections that a node has no room for closed with the reason, before any handshake.
pub(crate) fn gate(
    links: &Links,
    limits: NetworkLimits,
    counters: &Arc<InboundCounters>,
    refusals: &Arc<Refusals>,
) -> Gate {
    let (links, counters, refusals) = (links.clone(), Arc::clone(counters), Arc::clone(refusals));
    Gate::new(move |from| {
        links.full(from, &limits).inspect(|limit| {
            counters.refused(*limit);
            refusals.count(*limit, format_args!("connection from {}", address::display(from)));
        })
    })
}

#[derive(Debug, thiserror::Error)]
#[error("there is no room for another connection: {}", .0.setting())]
struct NoRoom(Limit);

impl Limits {
    pub(crate) fn new(
        limits: NetworkLimits,
        role: NetworkRole,
        links: Links,
        proved: Arc<ProvedNetworks>,
        counters: Arc<InboundCounters>,
        refusals: Arc<Refusals>,
    ) -> Self {
        Self {
            limits,
            registers: role.is_scraper(),
            links,
            proved,
            counters,
            refusals,
            evicted: VecDeque::new(),
            #[cfg(any(feature = "scraper", feature = "node"))]
            memory_log: LogPace::default(),
        }
    }

    fn establish(&mut self, peer: &PeerId, from: Option<&Multiaddr>) -> Result<(), NoRoom> {
        // A peer without an Ed25519 key is refused elsewhere.
        let Some(key) = peer_id::public_key(peer) else { return Ok(()) };
        let proved = from.and_then(address::network).is_some_and(|network| self.proved.contains(&network));
        let newcomer = Newcomer { peer: &key, from, proved, may_replace: self.registers };
        match self.links.room(newcomer, &self.limits) {
            Room::Free => Ok(()),
            Room::None(limit) => Err(NoRoom(limit)),
            Room::Replaces(id, limit) => {
                self.evict(id, limit);
                Ok(())
            }
        }
    }

    fn evict(&mut self, id: ConnectionId, limit: Limit) {
        let Some((peer, from)) = self.links.update(id, |evicted| (evicted.peer, evicted.address.clone())) else {
            return;
        };
        self.links.unlist(id, "the connection made room for another one");
        self.evicted.push_back((peer_id::peer_id(&peer), id));
        self.counters.evicted();
        self.refusals.count(limit, format_args!("connection from {}", address::display(&from)));
    }

    fn note_refusal(&mut self, from: &Multiaddr, cause: &ConnectionDenied) {
        if let Some(NoRoom(limit)) = cause.downcast_ref() {
            self.counters.refused(*limit);
            self.refusals.count(*limit, format_args!("connection from {}", address::display(from)));
        }
        #[cfg(any(feature = "scraper", feature = "node"))]
        if cause.downcast_ref::<MemoryUsageLimitExceeded>().is_some() {
            self.counters.refused_memory();
            if let Some(count) = self.memory_log.due() {
                let (last, why) = (address::display(from), innermost(cause));
                tracing::warn!(why, count, last, "a limit refuses work; the next such line in a minute");
            }
        }
    }
}

impl Wrap for Limits {
    type Handler = dummy::ConnectionHandler;
    type Event = Infallible;

    /// Where nobody makes room for a neighbour, refused before any handshake work.
    fn on_pending_inbound(&mut self, _: ConnectionId, remote: &Multiaddr) -> Result<(), ConnectionDenied> {
        let full = if self.registers { None } else { self.links.full(remote, &self.limits) };
        full.map_or(Ok(()), |limit| Err(ConnectionDenied::new(NoRoom(limit))))
    }

    fn handler(&mut self, connection: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied> {
        self.establish(&connection.peer, connection.comes_from()).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ListenFailure(failure) = event
            && let ListenError::Denied { cause } = failure.error
        {
            self.note_refusal(failure.send_back_addr, cause);
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Wrapped<Self>>>> {
        // The swarm polls after each new connection.
        let Some((peer_id, id)) = self.evicted.pop_front() else { return Poll::Pending };
        Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) })
    }
}
