//! libp2p's relay, with what it lacks.
//!
//! - libp2p's relay has room for ten circuits that are being built over a connection, and loses track of an eleventh: the
//!   peer that asked is never answered, and the circuit counts against the limits until its connection ends. A scraper
//!   that restarts has all its clients ask at the same time. Here circuits wait until there is room.
//! - The relay builds circuits over a connection until the connection has no room for another stream, and breaks: see
//!   [`handler`](super::handler).
//! - The relay panics when a reservation runs out while its renewal is on the way.
//! - Its events do not name their connection. Every closed connection ends a reservation, whether there was
//!   one or not, and a circuit whose far end is lost ends twice. Here both are counted by connection.
//! - A full relay refuses renewals, too; [`limits`] does not.
//! - Whatever the reason, a refused reservation is said to be one too many. A peer that may not reserve is told so here.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use libp2p::{
    PeerId,
    core::ConnectedPoint,
    relay::{self, StatusCode},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, behaviour::ConnectionEstablished, derive_prelude::Either,
    },
};

use crate::{
    identity::PublicKey,
    network::{
        address,
        config::RelayLimits,
        swarm::{
            node_stats::{NodeCounts, NodeStats},
            relay::{
                handler::{Handler, Instruction},
                limits::{self, OnlyFor, ReservedPeers},
            },
            wrapped::{LeftOf, NewConnection, Wrap},
        },
        transport::muxing,
    },
    telemetry::{Limit, Refusals},
};

/// Circuits that are built over one connection at a time: fewer than libp2p's ten, which it counts from another moment on.
const MOST_BUILDING: usize = 8;

/// The error of a circuit that has carried its bytes, by its text: the `io::Error` of libp2p-relay 0.22 has no kind.
const OUT_OF_BYTES: &str = "Max circuit bytes reached.";

/// What a peer is told that may not reserve at all (`RESERVATION_REFUSED` of Circuit Relay v2).
const NOT_PERMITTED: i32 = 200;

type Inner = relay::Behaviour;
type Request = THandlerInEvent<Inner>;
type Demand = <Request as LeftOf>::Left;
type Action = ToSwarm<relay::Event, Instruction>;

pub(crate) struct Behaviour {
    inner: Inner,
    stats: NodeStats,
    refusals: Arc<Refusals>,
    max_circuits: usize,
    only_for: OnlyFor,
    reserved_peers: ReservedPeers,
    connections: HashMap<ConnectionId, Connection>,
    /// Open circuits, by the peer that they were asked for.
    carried: HashMap<PeerId, usize>,
    actions: VecDeque<Action>,
}

struct Connection {
    peer: PeerId,
    endpoint: ConnectedPoint,
    reserved: bool,
    /// The other ends of the circuits that were asked for on it and are open.
    circuits: Vec<PeerId>,
    /// Circuits that are being built over it, towards its peer.
    building: usize,
    /// Circuits that wait to be built over it, each with the connection that it was asked for on.
    waiting: Vec<(ConnectionId, Request)>,
}

impl Behaviour {
    pub(crate) fn new(
        local: PeerId,
        limits: RelayLimits,
        only_for: &[PublicKey],
        stats: NodeStats,
        refusals: Arc<Refusals>,
    ) -> Self {
        let (reserved_peers, only_for) = (ReservedPeers::default(), OnlyFor::new(only_for));
        Self {
            max_circuits: limits.circuits,
            inner: limits::behaviour(local, limits, only_for.clone(), Arc::clone(&reserved_peers)),
            stats,
            refusals,
            only_for,
            reserved_peers,
            connections: HashMap::new(),
            carried: HashMap::new(),
            actions: VecDeque::new(),
        }
    }

    /// Takes the relay's actions; `source` is the connection whose event caused them.
    fn take_actions(&mut self, source: Option<ConnectionId>) {
        // The swarm polls us after each event, and the relay gets its real waker then.
        while let Poll::Ready(mut action) = self.inner.poll(&mut Context::from_waker(Waker::noop())) {
            if let ToSwarm::NotifyHandler { peer_id, event, .. } = &mut action
                && let Either::Left(Demand::DenyReservationReq { status, .. }) = event
                && !self.only_for.permits(peer_id)
            {
                *status = NOT_PERMITTED.try_into().unwrap_or(*status);
            }
            match (action, source) {
                (ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(to), event }, Some(from))
                    if to != from =>
                {
                    self.between_connections(peer_id, from, to, event);
                }
                (ToSwarm::GenerateEvent(event), source) => {
                    self.count(&event, source);
                    self.actions.push_back(ToSwarm::GenerateEvent(event));
                }
                (action, _) => self.actions.push_back(action.map_in(Instruction::Follow)),
            }
        }
    }

    /// A message that one connection's event makes the relay send to another: "build a circuit", which it addresses to
    /// the peer that asks although the connection is the other end's, or, in return, what came of it.
    fn between_connections(&mut self, peer_id: PeerId, from: ConnectionId, to: ConnectionId, event: Request) {
        let asks = self.connections.get(&from).map(|connection| connection.peer);
        if asks == Some(peer_id)
            && let Some(answers) = self.connections.get_mut(&to).filter(|answers| answers.peer != peer_id)
        {
            answers.waiting.push((from, event));
            self.build(to);
            return;
        }
        let (handler, event) = (NotifyHandler::One(to), Instruction::Follow(event));
        self.actions.push_back(ToSwarm::NotifyHandler { peer_id, handler, event });
        if asks != Some(peer_id)
            && let Some(connection) = self.connections.get_mut(&from)
        {
            connection.building = connection.building.saturating_sub(1);
            self.build(from);
        }
    }

    /// Builds the circuits that wait for a connection, as far as it has room: the latest first, as a peer that asked
    /// earlier may have given up.
    fn build(&mut self, over: ConnectionId) {
        loop {
            let Some(connection) = self.connections.get_mut(&over) else { return };
            let carried = self.carried.get(&connection.peer).copied().unwrap_or(0);
            let most = muxing::max_circuits(address::is_tcp(connection.endpoint.get_remote_address()));
            let full = carried + connection.building >= most;
            // A refusal needs no room.
            let may_go = full || connection.building < MOST_BUILDING;
            let Some((from, event)) = connection.waiting.pop_if(|_| may_go) else { return };
            if !self.connections.contains_key(&from) {
                continue; // the peer that asked is gone
            }
            let Some(connection) = self.connections.get_mut(&over) else { return };
            connection.building += 1;
            let event = if full { Instruction::Refuse(event) } else { Instruction::Follow(event) };
            let (peer_id, handler) = (connection.peer, NotifyHandler::One(over));
            self.actions.push_back(ToSwarm::NotifyHandler { peer_id, handler, event });
        }
    }

    fn count(&mut self, event: &relay::Event, source: Option<ConnectionId>) {
        let Some(id) = source else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match event {
            relay::Event::ReservationReqAccepted { .. } => {
                connection.set_reserved(true, &self.reserved_peers, &self.stats);
                self.stats.update(|counts| counts.reservations_granted += 1);
            }
            relay::Event::ReservationReqDenied { .. } => {
                self.stats.update(|counts| counts.reservations_refused += 1);
                if self.only_for.permits(&connection.peer) {
                    connection.refused(Limit::RelayReservations, &self.refusals);
                }
            }
            relay::Event::ReservationTimedOut { .. } => {
                connection.set_reserved(false, &self.reserved_peers, &self.stats);
                // The relay has forgotten the connection, and panics if a renewal on it has still to be answered.
                self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                    peer_id: connection.peer,
                    connection_id: id,
                    endpoint: &connection.endpoint,
                    failed_addresses: &[],
                    other_established: 0,
                }));
            }
            relay::Event::CircuitReqAccepted { dst_peer_id, .. } => {
                connection.circuits.push(*dst_peer_id);
                *self.carried.entry(*dst_peer_id).or_default() += 1;
                self.stats.update(|counts| {
                    counts.circuits += 1;
                    counts.circuits_built += 1;
                });
            }
            relay::Event::CircuitReqDenied { status, .. } => {
                self.stats.update(|counts| count_refusal(counts, status));
                if matches!(status, StatusCode::ResourceLimitExceeded) {
                    // The relay does not say which limit: whatever is not the one of all is one of a peer.
                    let full = self.carried.values().sum::<usize>() >= self.max_circuits;
                    let limit = if full { Limit::RelayCircuits } else { Limit::RelayCircuitsPerPeer };
                    connection.refused(limit, &self.refusals);
                }
            }
            relay::Event::CircuitClosed { dst_peer_id, error, .. } => {
                if let Some(at) = connection.circuits.iter().position(|peer| peer == dst_peer_id) {
                    connection.circuits.swap_remove(at);
                    end_circuit(&mut self.carried, dst_peer_id);
                    self.stats.update(|counts| count_end(counts, error.as_ref()));
                }
            }
            // ReservationClosed comes of every connection that closes.
            _ => {}
        }
    }

    fn closed(&mut self, id: ConnectionId) {
        if let Some(mut connection) = self.connections.remove(&id) {
            connection.set_reserved(false, &self.reserved_peers, &self.stats);
            connection.circuits.iter().for_each(|peer| end_circuit(&mut self.carried, peer));
            let circuits = connection.circuits.len() as u64;
            self.stats.update(|counts| {
                counts.circuits -= circuits;
                counts.circuits_ended.closed += circuits;
            });
        }
    }
}

impl Connection {
    fn refused(&self, limit: Limit, refusals: &Refusals) {
        refusals.count(limit, address::display(self.endpoint.get_remote_address()));
    }

    fn set_reserved(&mut self, reserved: bool, reserved_peers: &ReservedPeers, stats: &NodeStats) {
        if std::mem::replace(&mut self.reserved, reserved) == reserved {
            return;
        }
        let mut reserved_peers = reserved_peers.lock().unwrap_or_else(PoisonError::into_inner);
        let held = reserved_peers.entry(self.peer).or_default();
        *held = if reserved { *held + 1 } else { held.saturating_sub(1) };
        if *held == 0 {
            reserved_peers.remove(&self.peer);
        }
        stats.update(|counts| counts.reservations = reserved_peers.len() as u64);
    }
}

fn end_circuit(carried: &mut HashMap<PeerId, usize>, peer: &PeerId) {
    if let Some(circuits) = carried.get_mut(peer) {
        *circuits -= 1;
        if *circuits == 0 {
            carried.remove(peer);
        }
    }
}

fn count_refusal(counts: &mut NodeCounts, status: &StatusCode) {
    let refused = &mut counts.circuits_refused;
    *match status {
        StatusCode::ResourceLimitExceeded => &mut refused.limit,
        StatusCode::NoReservation => &mut refused.no_reservation,
        StatusCode::ConnectionFailed => &mut refused.unreachable,
        _ => &mut refused.malformed,
    } += 1;
}

fn count_end(counts: &mut NodeCounts, error: Option<&io::Error>) {
    counts.circuits -= 1;
    let ended = &mut counts.circuits_ended;
    *match error {
        Some(error) if error.kind() == io::ErrorKind::TimedOut => &mut ended.duration,
        Some(error) if error.to_string() == OUT_OF_BYTES => &mut ended.bytes,
        _ => &mut ended.closed,
    } += 1;
}

impl Wrap for Behaviour {
    type Handler = Handler;
    type Event = relay::Event;

    fn handler(&mut self, connection: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied> {
        connection.handler_of(&mut self.inner).map(Handler::new)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                let connection = Connection {
                    peer: peer_id,
                    endpoint: endpoint.clone(),
                    reserved: false,
                    circuits: Vec::new(),
                    building: 0,
                    waiting: Vec::new(),
                };
                self.connections.insert(connection_id, connection);
            }
            FromSwarm::ConnectionClosed(closed) => self.closed(closed.connection_id),
            _ => {}
        }
        self.take_actions(None);
    }

    fn on_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Inner>) {
        self.inner.on_connection_handler_event(peer, id, event);
        self.take_actions(Some(id));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Action> {
        match self.actions.pop_front() {
            Some(action) => Poll::Ready(action),
            None => self.inner.poll(cx).map(|action| action.map_in(Instruction::Follow)),
        }
    }
}
