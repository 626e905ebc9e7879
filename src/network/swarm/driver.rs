//! The one task that owns the swarm.
//!
//! It carries out commands, answers the DHT, and keeps the routing table clean. It waits for nothing but the swarm and
//! its inbox; streams bypass it.

mod connections;
mod dht;

use std::{
    collections::{HashMap, HashSet},
    mem,
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::transport::ListenerId,
    dcutr, identify, kad, ping, relay,
    swarm::{
        ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::PublicKey,
    network::{
        config::NetworkRole,
        failure::{DialFailure, NoReservation},
        links::{status::LinkTransport, stream::LinkId, table::Links},
        observation::{Observation, PeerKind},
        peer_id::{self, Circuit},
        reach::Reach,
        swarm::{
            build::{Behaviour, BehaviourEvent},
            local_addresses::Sources,
            node_stats::NodeStats,
            relay::limits,
        },
    },
    wire::Announcement,
};

/// What the rest of the network module asks of the swarm.
pub(crate) enum Command {
    /// Dials one peer at some addresses, all at once; answers with the one that worked.
    Dial { peer: PublicKey, addresses: Vec<Multiaddr>, reply: oneshot::Sender<Result<Multiaddr, DialFailure>> },
    /// Asks the DHT where a peer is. Each node's answer that is the peer's own word is handed on as it comes, until all
    /// have answered or nobody listens any more.
    Lookup { peer: PublicKey, found: mpsc::Sender<Announcement> },
    /// Hands our signed announcement to nodes. What they do with it shows only in a look-up.
    Put { peer: PublicKey, signed: Vec<u8>, to: Holders, done: oneshot::Sender<()> },
    /// Puts a node into the routing table.
    AddNode { peer: PublicKey, address: Multiaddr },
    /// Asks a relay for a reservation: to be reachable through it. `accepted` is told once it is granted, `ended` when it
    /// is refused or lost; it is given up once nobody waits for its end.
    Reserve { circuit: Circuit, accepted: oneshot::Sender<()>, ended: oneshot::Sender<NoReservation> },
    /// Says where the operator's places for us are now.
    External { addresses: Vec<Multiaddr> },
    /// Gives up a connection that answers nothing, and if it is direct the other direct ones to the same peer.
    Disconnect { peer: PublicKey, link: LinkId },
}

/// Which nodes are handed an announcement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holders {
    /// Those that are linked: at once.
    Linked,
    /// Those closest to our key, where everybody looks: found first, which a dead node in the tables makes slow.
    Closest,
}

/// A reservation at a relay, or the request for one.
struct Reservation {
    relay: PeerId,
    accepted: Option<oneshot::Sender<()>>,
    ended: oneshot::Sender<NoReservation>,
    /// When the relay last granted it.
    granted_at: Instant,
}

pub(crate) struct Driver {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    links: Links,
    reach: watch::Sender<Reach>,
    observations: broadcast::Sender<Observation>,
    stats: NodeStats,
    dials: HashMap<ConnectionId, oneshot::Sender<Result<Multiaddr, DialFailure>>>,
    lookups: HashMap<kad::QueryId, dht::Lookup>,
    puts: HashMap<kad::QueryId, oneshot::Sender<()>>,
    reservations: HashMap<ListenerId, Reservation>,
    role: NetworkRole,
    /// Where the operator says that we are.
    external: Vec<Multiaddr>,
    /// Direct connections that we opened: how we are seen over them is true for others, too.
    dialled: HashSet<ConnectionId>,
    sources: Sources,
    /// Connections to peers that we wanted to reach, which have not told yet where they see us.
    chosen: HashSet<ConnectionId>,
    /// Circuits from others whom we have not tried to dial straight.
    circuits: HashSet<ConnectionId>,
    /// Connections that others opened, from peers that nothing has made us keep.
    strangers: HashMap<ConnectionId, (PublicKey, Instant)>,
    /// At a node: the other nodes.
    nodes: HashSet<PublicKey>,
}

impl Driver {
    pub(crate) fn new(
        swarm: Swarm<Behaviour>,
        commands: mpsc::Receiver<Command>,
        links: Links,
        reach: watch::Sender<Reach>,
        observations: broadcast::Sender<Observation>,
        stats: NodeStats,
        role: NetworkRole,
    ) -> Self {
        Self {
            swarm,
            commands,
            links,
            reach,
            observations,
            stats,
            dials: HashMap::new(),
            lookups: HashMap::new(),
            puts: HashMap::new(),
            reservations: HashMap::new(),
            dialled: HashSet::new(),
            sources: Sources::default(),
            role,
            external: Vec::new(),
            chosen: HashSet::new(),
            circuits: HashSet::new(),
            strangers: HashMap::new(),
            nodes: HashSet::new(),
        }
    }

    /// Runs until `stop` fires or the last handle is gone, then closes every connection, so that peers notice at once.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut sweep = time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = sweep.tick() => self.sweep(),
                _ = look.tick(), if self.sources.is_due() => self.close_moved(),
                command = self.commands.recv() => match command {
                    Some(command) => self.handle(command),
                    None => break,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
        self.close().await;
    }

    async fn close(mut self) {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        if time::timeout(CLOSE_GRACE, closed).await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Dial { peer, addresses, reply } => self.dial(peer, addresses, reply),
            Command::Lookup { peer, found } => self.look_up(peer, found),
            Command::Put { peer, signed, to, done } => self.put(&peer, signed, to, done),
            Command::AddNode { peer, address } => {
                self.kad().add_address(&peer_id::peer_id(&peer), address);
            }
            Command::External { addresses } => self.set_external(addresses),
            Command::Reserve { circuit, accepted, ended } => self.reserve(&circuit, accepted, ended),
            Command::Disconnect { peer, link } => self.disconnect(peer, link.0),
        }
    }

    fn dial(
        &mut self,
        peer: PublicKey,
        addresses: Vec<Multiaddr>,
        reply: oneshot::Sender<Result<Multiaddr, DialFailure>>,
    ) {
        let options =
            DialOpts::peer_id(peer_id::peer_id(&peer)).condition(PeerCondition::Always).addresses(addresses).build();
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(id, reply);
            }
            Err(error) => {
                let _ = reply.send(Err(DialFailure::from(error)));
            }
        }
    }

    fn reserve(&mut self, circuit: &Circuit, accepted: oneshot::Sender<()>, ended: oneshot::Sender<NoReservation>) {
        match self.swarm.listen_on(circuit.address()) {
            Ok(listener) => {
                let (relay, granted_at) = (peer_id::peer_id(&circuit.relay), Instant::now());
                self.reservations.insert(listener, Reservation { relay, accepted: Some(accepted), ended, granted_at });
            }
            Err(error) => {
                let _ = ended.send(NoReservation::of(&error));
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { connection_id, endpoint, peer_id, .. } => {
                self.on_opened(connection_id, peer_id, &endpoint);
                if let Some(reply) = self.dials.remove(&connection_id) {
                    self.chosen.insert(connection_id);
                    let _ = reply.send(Ok(peer_id::without_peer(endpoint.get_remote_address())));
                }
            }
            SwarmEvent::ConnectionClosed { connection_id, peer_id, endpoint, num_established, cause } => {
                self.on_closed(connection_id, &endpoint, cause.is_some());
                if num_established == 0 && self.role == NetworkRole::Node {
                    // Nodes keep their links: this one has ended, and whoever asks us shall not be sent there. If it is
                    // back, it is met again.
                    self.kad().remove_peer(&peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                if let Some(peer) = peer_id.filter(|peer| !self.swarm.is_connected(peer)) {
                    // Or a dead node costs every later query a timeout. Whoever keeps it will add it again.
                    self.kad().remove_peer(&peer);
                }
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Err(DialFailure::from(error)));
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "inbound connection failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                // A relay tells those whom it makes reachable where it is, a client its scraper, which then need not punch.
                // What else a client listens on is nobody's business. A scraper announces, and has itself dialled back.
                if self.role != NetworkRole::Scraper && !peer_id::is_private(&address) {
                    self.swarm.add_external_address(address);
                }
                self.sources.changed();
                self.publish_reach();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                if !self.external.contains(&address) {
                    self.swarm.remove_external_address(&address);
                }
                self.sources.changed();
                self.publish_reach();
            }
            SwarmEvent::ExternalAddrConfirmed { .. } | SwarmEvent::ExternalAddrExpired { .. } => {
                self.publish_reach();
            }
            SwarmEvent::ListenerClosed { listener_id, reason, addresses } => {
                match (self.reservations.remove(&listener_id), reason) {
                    (Some(reservation), reason) => {
                        let end = match reason {
                            Ok(()) => NoReservation::lost("the relay is gone"),
                            Err(error) => NoReservation::of(&error),
                        };
                        let _ = reservation.ended.send(end);
                    }
                    (None, Err(error)) => tracing::error!(%error, ?addresses, "a listener closed"),
                    (None, Ok(())) => {}
                }
                self.publish_reach();
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!(%error, "listener error"),
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => self.on_kad(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            })) => {
                // Once: where it is believed, nobody shall make us believe in ever more places.
                let chosen = self.chosen.remove(&connection_id) && self.dialled.contains(&connection_id);
                if chosen && peer_id::is_plain(&info.observed_addr) {
                    self.swarm.behaviour_mut().observed.add(info.observed_addr.clone());
                }
                self.observe_peer(connection_id, &peer_id, &info);
                self.dial_straight(connection_id, peer_id, &info);
                self.learn_node(peer_id, &info);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping)) => self.on_ping(ping),
            SwarmEvent::Behaviour(BehaviourEvent::RelayClient(relay::client::Event::ReservationReqAccepted {
                relay_peer_id,
                ..
            })) => {
                for held in self.reservations.values_mut().filter(|held| held.relay == relay_peer_id) {
                    held.granted_at = Instant::now();
                    if let Some(accepted) = held.accepted.take() {
                        let _ = accepted.send(());
                    }
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Dcutr(dcutr::Event { remote_peer_id, result })) => {
                tracing::debug!(peer = %remote_peer_id, ?result, "a hole punch ended");
                if let (Some(peer), Err(_)) = (peer_id::public_key(&remote_peer_id), result) {
                    self.links.punch_failed(&peer);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::NatServer(asked)) => self.stats.update(|counts| match asked.result {
                Ok(()) => counts.dial_backs += 1,
                Err(_) => counts.dial_backs_failed += 1,
            }),
            SwarmEvent::Behaviour(BehaviourEvent::NatClient(tested)) => {
                tracing::debug!(address = %tested.tested_addr, result = ?tested.result, "a node dialled us back");
                if let Some(address) = peer_id::socket_addr(&tested.tested_addr) {
                    let (transport, reached) = (LinkTransport::of(&tested.tested_addr), tested.result.is_ok());
                    self.observe(Observation::DialledBack { address, transport, reached });
                }
            }
            _ => {}
        }
    }

    fn observe_peer(&self, connection: ConnectionId, peer: &PeerId, info: &identify::Info) {
        let Some(peer) = peer_id::public_key(peer) else { return };
        self.links.on_identified(&peer, connection);
        let dialled = self.dialled.contains(&connection);
        self.observe(Observation::Identified {
            peer,
            transport: LinkTransport::of(&info.observed_addr),
            seen_at: peer_id::socket_addr(&info.observed_addr).filter(|_| dialled),
            kind: PeerKind::of(&info.protocols),
        });
    }

    fn observe(&self, observation: Observation) {
        // Mostly nobody looks.
        let _ = self.observations.send(observation);
    }

    fn on_ping(&mut self, ping::Event { peer, connection, result }: ping::Event) {
        let Some(key) = peer_id::public_key(&peer) else { return };
        match result {
            Ok(rtt) => self.links.measured(&key, connection, rtt),
            Err(error) => {
                // "Unsupported" too: every narthex peer answers pings.
                tracing::debug!(%peer, %error, "ping failed: closing the connection");
                self.give_up_silent(key, connection, &format!("ping: {error}"));
            }
        }
    }

    fn publish_reach(&mut self) {
        let reach = Reach::new(self.swarm.listeners(), self.swarm.external_addresses(), self.external.clone());
        self.reach.send_if_modified(|known| mem::replace(known, reach) != *known);
    }

    /// Puts the places that the operator has given at these addresses in the stead of those they were at.
    pub(crate) fn set_external(&mut self, addresses: Vec<Multiaddr>) {
        for old in mem::take(&mut self.external).iter().filter(|old| !addresses.contains(old)) {
            self.swarm.remove_external_address(old);
        }
        for address in &addresses {
            self.swarm.add_external_address(address.clone());
        }
        self.external = addresses;
        self.publish_reach();
    }

    fn sweep(&mut self) {
        let now = std::time::Instant::now();
        self.kad().store_mut().retain(|_, record| !record.is_expired(now));
        self.count_records();
        if self.role == NetworkRole::Node {
            self.let_go_of_the_forgotten();
        }
        self.close_strangers();
        self.close_superfluous();
        self.give_up_reservations();
    }

    /// A relay that lost a reservation without our notice grants it no more.
    fn give_up_reservations(&mut self) {
        let dead = |held: &Reservation| held.ended.is_closed() || held.granted_at.elapsed() > limits::RESERVATION;
        let dead: Vec<_> = self.reservations.iter().filter(|(_, held)| dead(held)).map(|(id, _)| *id).collect();
        for listener in dead {
            self.swarm.remove_listener(listener);
        }
    }
}

const SWEEP_EVERY: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const CLOSE_GRACE: Duration = Duration::from_millis(500);
