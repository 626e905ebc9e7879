//! libp2p's relay, with what it lacks.
//!
//! - libp2p's relay has room for ten circuits that are being built over a connection, and loses track of an eleventh: the
//!   peer that asked is never answered, and the circuit counts against the limits until its connection ends. A scraper
//!   that restarts has all its clients ask at the same time. Here circuits wait until there is room.
//! - The relay builds circuits over a connection until the connection has no room for another stream: one of yamux then
//!   breaks, with all its circuits, and one of QUIC makes the peer that asked wait. Here such a circuit is refused at once.
//! - Of several connections with a reservation the relay takes any. Here it is the one that has most room.
//! - The relay panics when a reservation runs out while its renewal is on the way.
//! - Its events do not name their connection. Every closed connection ends a reservation, whether there was
//!   one or not, and a circuit whose far end is lost ends twice. Here both are counted by what the handlers report.
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
    relay::{self, CircuitId, StatusCode},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished, derive_prelude::Either,
    },
};

use crate::{
    identity::PublicKey,
    network::{
        address,
        config::RelayLimits,
        swarm::{
            node_stats::{NodeCounts, NodeStats},
            relay::limits::{self, OnlyFor, ReservedPeers},
            wrapped::{LeftOf, NewConnection, Wrap},
        },
        transport::muxing,
    },
    telemetry::{Limit, LogPace, Refusals},
};

/// Circuits that are built over one connection at a time: fewer than libp2p's ten, which it counts from another moment on.
const MOST_BUILDING: usize = 8;

/// The error of a circuit that has carried its bytes, by its text: the `io::Error` of libp2p-relay 0.22 has no kind.
const OUT_OF_BYTES: &str = "Max circuit bytes reached.";

/// What a peer is told that may not reserve at all (`RESERVATION_REFUSED` of Circuit Relay v2).
const NOT_PERMITTED: i32 = 200;
/// What a peer is told whose circuit has no room (`RESOURCE_LIMIT_EXCEEDED`).
const NO_ROOM: i32 = 201;

type Inner = relay::Behaviour;
type Request = THandlerInEvent<Inner>;
type Demand = <Request as LeftOf>::Left;
type Report = <THandlerOutEvent<Inner> as LeftOf>::Left;
type Action = ToSwarm<relay::Event, Request>;

pub(crate) struct Behaviour {
    inner: Inner,
    stats: NodeStats,
    refusals: Arc<Refusals>,
    max_circuits: usize,
    only_for: OnlyFor,
    reserved_peers: ReservedPeers,
    connections: HashMap<ConnectionId, Connection>,
    /// Those that are being built, and those that are open.
    circuits: HashMap<CircuitId, Circuit>,
    actions: VecDeque<Action>,
    no_room_log: LogPace,
}

struct Connection {
    peer: PeerId,
    endpoint: ConnectedPoint,
    reserved: bool,
    /// Circuits towards its peer, over it.
    circuits: usize,
    /// Those of them that are being built.
    building: usize,
    /// Circuits that wait to be built over it.
    waiting: Vec<Waiting>,
}

struct Waiting {
    id: CircuitId,
    /// The connection that the circuit was asked for on.
    from: ConnectionId,
    request: Request,
}

struct Circuit {
    from: ConnectionId,
    to: ConnectionId,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its far end is asked.
    Building,
    /// Its far end has agreed.
    Accepting,
    Open,
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
            circuits: HashMap::new(),
            actions: VecDeque::new(),
            no_room_log: LogPace::default(),
        }
    }

    /// Takes the relay's actions; `source` is the connection whose event caused them.
    fn take_actions(&mut self, source: Option<ConnectionId>) {
        while let Poll::Ready(action) = self.poll_inner() {
            match action {
                ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(to), event: Either::Left(demand) } => {
                    self.on_demand(peer_id, to, demand);
                }
                ToSwarm::GenerateEvent(event) => {
                    if let Some(source) = source {
                        self.count(&event, source);
                    }
                    self.actions.push_back(ToSwarm::GenerateEvent(event));
                }
                action => self.actions.push_back(action),
            }
        }
    }

    /// The swarm polls us after each event, and the relay gets its real waker then.
    fn poll_inner(&mut self) -> Poll<Action> {
        self.inner.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// What the relay has the handler of a connection do.
    fn on_demand(&mut self, peer: PeerId, to: ConnectionId, mut demand: Demand) {
        match &mut demand {
            Demand::NegotiateOutboundConnect { circuit_id, src_connection_id, .. } => {
                let (id, from) = (*circuit_id, *src_connection_id);
                let Some(connection) = self.connections.get_mut(&to) else { return };
                if connection.room() == 0 {
                    return self.refuse(peer, to, demand);
                }
                connection.waiting.push(Waiting { id, from, request: Either::Left(demand) });
                return self.build(to);
            }
            Demand::DenyReservationReq { status, .. } if !self.only_for.permits(&peer) => {
                *status = NOT_PERMITTED.try_into().unwrap_or(*status);
            }
            Demand::AcceptAndDriveCircuit { circuit_id, .. } => self.built(*circuit_id),
            Demand::DenyCircuitReq { circuit_id: Some(id), .. } => {
                self.built(*id);
                self.end(*id);
            }
            _ => {}
        }
        self.tell(peer, to, demand);
    }

    fn tell(&mut self, peer_id: PeerId, to: ConnectionId, demand: Demand) {
        let (handler, event) = (NotifyHandler::One(to), Either::Left(demand));
        self.actions.push_back(ToSwarm::NotifyHandler { peer_id, handler, event });
    }

    /// Has the peer that asks be told that there is no room for a circuit, which the relay wants over `to`.
    fn refuse(&mut self, asks: PeerId, to: ConnectionId, demand: Demand) {
        let Demand::NegotiateOutboundConnect { circuit_id, inbound_circuit_req, src_connection_id, .. } = demand else {
            return;
        };
        let Ok(status) = NO_ROOM.try_into() else { return };
        let denial = Demand::DenyCircuitReq { circuit_id: Some(circuit_id), inbound_circuit_req, status };
        self.tell(asks, src_connection_id, denial);
        if let (Some(full), Some(count)) = (self.connections.get(&to), self.no_room_log.due()) {
            let (peer, connections) = (full.peer, self.reserved(&full.peer).len());
            tracing::warn!(
                %peer,
                at = address::display(full.endpoint.get_remote_address()),
                connections,
                count,
                "a peer has no room for circuits: let its UDP through, or give it another relay; the next such line in a minute"
            );
        }
    }

    /// Builds the circuits that wait for a connection, a few at a time: the latest first, as a peer that asked earlier may
    /// have given up.
    fn build(&mut self, over: ConnectionId) {
        loop {
            let Some(connection) = self.connections.get_mut(&over).filter(|over| over.building < MOST_BUILDING) else {
                return;
            };
            let (peer_id, handler) = (connection.peer, NotifyHandler::One(over));
            let Some(Waiting { id, from, request }) = connection.waiting.pop() else { return };
            if !self.connections.contains_key(&from) {
                continue; // the peer that asked is gone
            }
            self.circuits.insert(id, Circuit { from, to: over, stage: Stage::Building });
            if let Some(connection) = self.connections.get_mut(&over) {
                connection.building += 1;
                connection.circuits += 1;
            }
            self.actions.push_back(ToSwarm::NotifyHandler { peer_id, handler, event: request });
        }
    }

    /// The far end of a circuit has agreed, or has not.
    fn built(&mut self, id: CircuitId) {
        let Some(circuit) = self.circuits.get_mut(&id).filter(|circuit| circuit.stage == Stage::Building) else {
            return;
        };
        circuit.stage = Stage::Accepting;
        let over = circuit.to;
        if let Some(connection) = self.connections.get_mut(&over) {
            connection.building -= 1;
        }
        self.build(over);
    }

    /// Forgets a circuit, and returns how far it was.
    fn end(&mut self, id: CircuitId) -> Option<Stage> {
        let Circuit { to, stage, .. } = self.circuits.remove(&id)?;
        if let Some(connection) = self.connections.get_mut(&to) {
            connection.circuits -= 1;
            connection.building -= usize::from(stage == Stage::Building);
        }
        Some(stage)
    }

    /// Has the relay take, for the next circuit to the peer, the connection that has most room: of equals the newest. The relay
    /// takes any that has a reservation, so it is shown no other.
    fn prefer_roomy(&mut self, peer: PeerId) {
        let reserved = self.reserved(&peer);
        let room = |id: &ConnectionId| self.connections.get(id).map(Connection::room);
        let Some(best) = reserved.iter().max_by_key(|id| room(id)).copied() else { return };
        for other in reserved.into_iter().filter(|id| *id != best) {
            self.show_unreserved(other);
        }
        let renewed = Report::ReservationReqAccepted { renewed: true };
        self.inner.on_connection_handler_event(peer, best, Either::Left(renewed));
        let _ = self.poll_inner(); // its event
    }

    /// The connections that a peer holds reservations on, in the order in which it got them.
    fn reserved(&self, peer: &PeerId) -> Vec<ConnectionId> {
        let reserved = self.reserved_peers.lock().unwrap_or_else(PoisonError::into_inner);
        reserved.get(peer).cloned().unwrap_or_default()
    }

    /// Has the relay know the connection, and no reservation on it.
    fn show_unreserved(&mut self, id: ConnectionId) {
        let Some(Connection { peer, endpoint, .. }) = self.connections.get(&id) else { return };
        self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: *peer,
            connection_id: id,
            endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
    }

    /// What the handler of a connection has seen, before the relay learns of it.
    fn on_report(&mut self, report: &Report) {
        match report {
            Report::CircuitReqReceived { inbound_circuit_req, .. } => self.prefer_roomy(inbound_circuit_req.dst()),
            Report::CircuitReqAccepted { circuit_id, .. } => {
                if let Some(circuit) = self.circuits.get_mut(circuit_id) {
                    circuit.stage = Stage::Open;
                    self.stats.update(|counts| {
                        counts.circuits += 1;
                        counts.circuits_built += 1;
                    });
                }
            }
            Report::CircuitReqAcceptFailed { circuit_id, .. } => drop(self.end(*circuit_id)),
            Report::CircuitClosed { circuit_id, error, .. } => {
                let was_open = self.end(*circuit_id) == Some(Stage::Open);
                self.stats.update(|counts| {
                    if was_open {
                        count_end(counts, error.as_ref())
                    }
                });
            }
            _ => {}
        }
    }

    fn count(&mut self, event: &relay::Event, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match event {
            relay::Event::ReservationReqAccepted { .. } => {
                connection.set_reserved(id, true, &self.reserved_peers, &self.stats);
                self.stats.update(|counts| counts.reservations_granted += 1);
            }
            relay::Event::ReservationReqDenied { .. } => {
                self.stats.update(|counts| counts.reservations_refused += 1);
                if self.only_for.permits(&connection.peer) {
                    connection.refused(Limit::RelayReservations, &self.refusals);
                }
            }
            relay::Event::ReservationTimedOut { .. } => {
                connection.set_reserved(id, false, &self.reserved_peers, &self.stats);
                // The relay has forgotten the connection, and panics if a renewal on it has still to be answered.
                self.show_unreserved(id);
            }
            _ => {}
        }
    }

    /// `chosen` is true if the circuit was to be built: what had no room then is the connection, and no limit of ours.
    fn count_denied(&mut self, id: ConnectionId, chosen: bool, status: StatusCode) {
        let for_limit = matches!(status, StatusCode::ResourceLimitExceeded);
        if for_limit && chosen {
            return self.stats.update(|counts| counts.circuits_refused.no_room += 1);
        }
        self.stats.update(|counts| count_refusal(counts, status));
        if let Some(connection) = self.connections.get(&id).filter(|_| for_limit) {
            // The relay does not say which limit: whatever is not the one of all is one of a peer.
            let full = self.circuits.len() >= self.max_circuits;
            let limit = if full { Limit::RelayCircuits } else { Limit::RelayCircuitsPerPeer };
            connection.refused(limit, &self.refusals);
        }
    }

    fn closed(&mut self, id: ConnectionId) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        connection.set_reserved(id, false, &self.reserved_peers, &self.stats);
        // Of what others asked for over it, only what was not yet built ends unreported.
        let lost = |circuit: &Circuit| circuit.from == id || circuit.to == id && circuit.stage == Stage::Building;
        let lost: Vec<_> = self.circuits.iter().filter(|(_, circuit)| lost(circuit)).map(|(id, _)| *id).collect();
        let open = lost.into_iter().filter_map(|id| self.end(id)).filter(|stage| *stage == Stage::Open).count() as u64;
        self.stats.update(|counts| {
            counts.circuits -= open;
            counts.circuits_ended.closed += open;
        });
    }
}

impl Connection {
    /// Circuits that it can still take. Those that wait may be given up, but have their place until then.
    fn room(&self) -> usize {
        let most = muxing::max_circuits(address::is_tcp(self.endpoint.get_remote_address()));
        most.saturating_sub(self.circuits + self.waiting.len())
    }

    fn refused(&self, limit: Limit, refusals: &Refusals) {
        refusals.count(limit, address::display(self.endpoint.get_remote_address()));
    }

    fn set_reserved(&mut self, id: ConnectionId, reserved: bool, reserved_peers: &ReservedPeers, stats: &NodeStats) {
        if std::mem::replace(&mut self.reserved, reserved) == reserved {
            return;
        }
        let mut reserved_peers = reserved_peers.lock().unwrap_or_else(PoisonError::into_inner);
        let held = reserved_peers.entry(self.peer).or_default();
        if reserved {
            held.push(id);
        } else {
            held.retain(|other| *other != id);
        }
        if held.is_empty() {
            reserved_peers.remove(&self.peer);
        }
        stats.update(|counts| counts.reservations = reserved_peers.len() as u64);
    }
}

fn count_refusal(counts: &mut NodeCounts, status: StatusCode) {
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
    type Handler = THandler<Inner>;
    type Event = relay::Event;

    fn handler(&mut self, connection: NewConnection<'_>) -> Result<Self::Handler, ConnectionDenied> {
        connection.handler_of(&mut self.inner)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                let connection = Connection {
                    peer: peer_id,
                    endpoint: endpoint.clone(),
                    reserved: false,
                    circuits: 0,
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
        if let Either::Left(report) = &event {
            self.on_report(report);
            if let Report::CircuitReqDenied { circuit_id, status, .. } = report {
                self.count_denied(id, circuit_id.is_some(), (*status).into());
            }
        }
        self.inner.on_connection_handler_event(peer, id, event);
        self.take_actions(Some(id));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Action> {
        match self.actions.pop_front() {
            Some(action) => Poll::Ready(action),
            None => self.inner.poll(cx),
        }
    }
}
