//! The one task that owns the swarm.
//!
//! It carries out commands, answers the DHT, and keeps the routing table clean. It waits for nothing but the swarm and
//! its inbox; streams bypass it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::transport::ListenerId,
    dcutr, identify,
    kad::{self, store::RecordStore},
    ping, relay,
    swarm::{
        ConnectionId, DialError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    config::NetworkRole,
    links::{LinkTransport, Links},
    node_stats::NodeStats,
    observation::{Observation, PeerKind},
    peer_id::{self, Circuit},
    refusal, relaying,
    sources::Sources,
    stream::LinkId,
    swarm::{Behaviour, BehaviourEvent, KAD_PROTOCOL, PUT_QUORUM},
};
use crate::{
    identity::PublicKey,
    wire::{self, AnnounceError, Announcement},
};

/// What the rest of the network module asks of the swarm.
pub(super) enum Command {
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
    Reserve { circuit: Circuit, accepted: oneshot::Sender<()>, ended: oneshot::Sender<String> },
    /// Gives up one connection to a peer.
    Disconnect { peer: PublicKey, link: LinkId },
}

/// Why a dial failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum DialFailure {
    #[error("the peer at {address} has another key: {found}")]
    WrongKey { address: String, found: String },
    #[error("{}", attempts.join("; "))]
    Unreachable { attempts: Vec<String> },
}

/// Which nodes are handed an announcement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holders {
    /// Those that are linked: at once.
    Linked,
    /// Those closest to our key, where everybody looks: found first, which a dead node in the tables makes slow.
    Closest,
}

/// A reservation at a relay, or the request for one.
struct Reservation {
    relay: PeerId,
    accepted: Option<oneshot::Sender<()>>,
    ended: oneshot::Sender<String>,
    /// When the relay last granted it.
    granted_at: Instant,
}

struct Lookup {
    peer: PublicKey,
    found: mpsc::Sender<Announcement>,
}

pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    links: Links,
    listening: watch::Sender<Arc<[Multiaddr]>>,
    observations: broadcast::Sender<Observation>,
    stats: NodeStats,
    dials: HashMap<ConnectionId, oneshot::Sender<Result<Multiaddr, DialFailure>>>,
    lookups: HashMap<kad::QueryId, Lookup>,
    puts: HashMap<kad::QueryId, oneshot::Sender<()>>,
    reservations: HashMap<ListenerId, Reservation>,
    role: NetworkRole,
    /// Direct connections that we opened: how we are seen over them is true for others, too.
    dialled: HashSet<ConnectionId>,
    sources: Sources,
    /// Connections that others opened, from peers that nothing has made us keep.
    strangers: HashMap<ConnectionId, (PublicKey, Instant)>,
    /// At a node: the other nodes.
    nodes: HashSet<PublicKey>,
}

impl Driver {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        commands: mpsc::Receiver<Command>,
        links: Links,
        listening: watch::Sender<Arc<[Multiaddr]>>,
        observations: broadcast::Sender<Observation>,
        stats: NodeStats,
        role: NetworkRole,
    ) -> Self {
        Self {
            swarm,
            commands,
            links,
            listening,
            observations,
            stats,
            dials: HashMap::new(),
            lookups: HashMap::new(),
            puts: HashMap::new(),
            reservations: HashMap::new(),
            dialled: HashSet::new(),
            sources: Sources::default(),
            role,
            strangers: HashMap::new(),
            nodes: HashSet::new(),
        }
    }

    /// Runs until `stop` fires or the last handle is gone, then closes every connection, so that peers notice at once.
    pub(super) async fn run(mut self, stop: CancellationToken) {
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
            Command::Lookup { peer, found } => {
                let query = self.kad().get_record(record_key(&peer));
                self.lookups.insert(query, Lookup { peer, found });
            }
            Command::Put { peer, signed, to, done } => self.put(kad::Record::new(record_key(&peer), signed), to, done),
            Command::AddNode { peer, address } => {
                self.kad().add_address(&peer_id::peer_id(&peer), address);
            }
            Command::Reserve { circuit, accepted, ended } => self.reserve(&circuit, accepted, ended),
            Command::Disconnect { peer, link } => {
                // At once, as a dead connection cannot be closed cleanly: that waits for the peer.
                self.links.remove(peer, link.0, "it answered nothing");
                self.swarm.close_connection(link.0);
                self.close_others(peer);
            }
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
                let _ = reply.send(Err(dial_failure(&error)));
            }
        }
    }

    fn reserve(&mut self, circuit: &Circuit, accepted: oneshot::Sender<()>, ended: oneshot::Sender<String>) {
        match self.swarm.listen_on(circuit.address()) {
            Ok(listener) => {
                let (relay, granted_at) = (peer_id::peer_id(&circuit.relay), Instant::now());
                self.reservations.insert(listener, Reservation { relay, accepted: Some(accepted), ended, granted_at });
            }
            Err(error) => {
                let _ = ended.send(why(&error));
            }
        }
    }

    fn put(&mut self, record: kad::Record, to: Holders, done: oneshot::Sender<()>) {
        let query = match to {
            Holders::Linked => {
                let linked = self.linked_nodes();
                Ok(self.kad().put_record_to(record, linked.into_iter(), PUT_QUORUM))
            }
            Holders::Closest => self.kad().put_record(record, PUT_QUORUM),
        };
        match query {
            Ok(query) => {
                self.puts.insert(query, done);
            }
            Err(error) => tracing::warn!(%error, "could not announce our addresses"),
        }
    }

    fn linked_nodes(&mut self) -> Vec<PeerId> {
        let mut known = Vec::new();
        for bucket in self.kad().kbuckets() {
            known.extend(bucket.iter().map(|entry| *entry.node.key.preimage()));
        }
        known.into_iter().filter(|node| self.swarm.is_connected(node)).take(kad::K_VALUE.get()).collect()
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { connection_id, endpoint, peer_id, .. } => {
                if endpoint.is_dialer() && !endpoint.is_relayed() {
                    self.dialled.insert(connection_id);
                }
                if let Some(peer) = peer_id::public_key(&peer_id) {
                    self.sources.opened(connection_id, peer, endpoint.get_remote_address());
                    if endpoint.is_listener() {
                        self.close_older(connection_id, peer);
                        self.strangers.insert(connection_id, (peer, Instant::now()));
                    }
                }
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Ok(peer_id::without_peer(endpoint.get_remote_address())));
                }
            }
            SwarmEvent::ConnectionClosed { connection_id, peer_id, endpoint, num_established, cause } => {
                self.strangers.remove(&connection_id);
                self.dialled.remove(&connection_id);
                if num_established == 0 && self.role == NetworkRole::Node {
                    // Nodes keep their links: this one has ended, and whoever asks us shall not be sent there. If it is
                    // back, it is met again.
                    self.kad().remove_peer(&peer_id);
                }
                let broken = cause.is_some() && peer_id::is_tcp(endpoint.get_remote_address());
                // A connection that one side has too many of is closed as soon as it is there, and a node closes what a
                // passer-by leaves idle.
                if let Some(source) = self.sources.closed(connection_id)
                    && broken
                    && source.since.elapsed() > SETTLED
                    && self.links.is_kept(&source.peer)
                {
                    self.close_others(source.peer);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                if let Some(peer) = peer_id.filter(|peer| !self.swarm.is_connected(peer)) {
                    // Or a dead node costs every later query a timeout. Whoever keeps it will add it again.
                    self.kad().remove_peer(&peer);
                }
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Err(dial_failure(&error)));
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "inbound connection failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                // A relay tells those whom it makes reachable where it is.
                if self.role == NetworkRole::Node && !peer_id::is_private(&address) {
                    self.swarm.add_external_address(address);
                }
                self.sources.changed();
                self.publish_listeners();
            }
            SwarmEvent::ExpiredListenAddr { .. } => {
                self.sources.changed();
                self.publish_listeners();
            }
            SwarmEvent::ExternalAddrConfirmed { .. } | SwarmEvent::ExternalAddrExpired { .. } => {
                self.publish_listeners();
            }
            SwarmEvent::ListenerClosed { listener_id, reason, addresses } => {
                match (self.reservations.remove(&listener_id), reason) {
                    (Some(reservation), reason) => {
                        let why = reason.map_or_else(|error| why(&error), |()| "the relay is gone".to_owned());
                        let _ = reservation.ended.send(why);
                    }
                    (None, Err(error)) => tracing::error!(%error, ?addresses, "a listener closed"),
                    (None, Ok(())) => {}
                }
                self.publish_listeners();
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!(%error, "listener error"),
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => self.on_kad(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            })) => {
                if self.dialled.contains(&connection_id) && peer_id::is_plain(&info.observed_addr) {
                    self.swarm.behaviour_mut().observed.add(info.observed_addr.clone());
                }
                self.observe_peer(connection_id, &peer_id, &info);
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
                self.links.remove(key, connection, &format!("ping: {error}"));
                self.swarm.close_connection(connection);
            }
        }
    }

    fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest {
                request: kad::InboundRequest::PutRecord { source, record: Some(record), .. },
            } => self.store_announcement(source, record),
            kad::Event::InboundRequest { request: kad::InboundRequest::GetRecord { present_locally, .. } } => {
                self.stats.update(|counts| match present_locally {
                    true => counts.lookups_found += 1,
                    false => counts.lookups_missed += 1,
                });
            }
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => match result {
                kad::QueryResult::GetRecord(result) => self.on_lookup(id, result.ok(), step.last),
                kad::QueryResult::PutRecord(_) => {
                    if let Some(done) = self.puts.remove(&id) {
                        let _ = done.send(());
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// A node takes an announcement from its owner's own connection only, signed, and newer than the one it has: then
    /// filling our store costs a connection per record, and nobody can bring back an old one.
    fn store_announcement(&mut self, source: PeerId, mut record: kad::Record) {
        let Some(peer) = peer_id::public_key(&source) else { return };
        if record.key != record_key(&peer) {
            tracing::debug!(%peer, "refused an announcement for somebody else");
            self.stats.update(|counts| counts.records_refused.not_owner += 1);
            return;
        }
        let announcement = match Announcement::verify(&record.value, &peer, SystemTime::now()) {
            Ok(announcement) => announcement,
            Err(error) => {
                tracing::debug!(%peer, %error, "refused an announcement");
                self.stats.update(|counts| match error {
                    AnnounceError::Signature { .. } => counts.records_refused.signature += 1,
                    _ => counts.records_refused.malformed += 1,
                });
                return;
            }
        };
        let stored = self.kad().store_mut().get(&record.key).map(|stored| stored.value.clone());
        let stored = stored.and_then(|bytes| Announcement::verify(&bytes, &peer, SystemTime::now()).ok());
        if stored.is_some_and(|stored| !announcement.supersedes(&stored)) {
            tracing::debug!(%peer, "refused an announcement that is not newer");
            self.stats.update(|counts| counts.records_refused.stale += 1);
            return;
        }
        let expires_at = UNIX_EPOCH + Duration::from_secs(announcement.expires_at_unix_s);
        let left = expires_at.duration_since(SystemTime::now()).unwrap_or_default();
        // Whoever wants to stay known announces again: what is made up fills the store only for so long.
        record.expires = Some(std::time::Instant::now() + left.min(MOST_KEPT));
        record.publisher = Some(source);
        if self.kad().store_mut().put(record.clone()).is_err() {
            self.forget_the_first_to_expire();
            if let Err(error) = self.kad().store_mut().put(record) {
                tracing::warn!(%peer, %error, "no room for an announcement");
                self.stats.update(|counts| counts.records_refused.full += 1);
                return;
            }
            self.stats.update(|counts| counts.records_displaced += 1);
        }
        self.stats.update(|counts| counts.records_stored += 1);
        self.count_records();
        // It announces again and again: over the connection that it has.
        self.links.keep(peer);
    }

    fn count_records(&mut self) {
        let records = self.kad().store_mut().records().len() as u64;
        self.stats.update(|counts| counts.records = records);
    }

    /// Whoever is still there announces again every few minutes, so the first to expire is the likeliest to be gone.
    fn forget_the_first_to_expire(&mut self) {
        let store = self.kad().store_mut();
        let first = store.records().min_by_key(|record| record.expires).map(|record| record.key.clone());
        if let Some(key) = first {
            store.remove(&key);
        }
    }

    fn on_lookup(&mut self, id: kad::QueryId, found: Option<kad::GetRecordOk>, last: bool) {
        let Some(lookup) = self.lookups.get(&id) else { return };
        // Our own store says only what we have put there ourselves.
        if let Some(kad::GetRecordOk::FoundRecord(kad::PeerRecord { peer: Some(node), record })) = found {
            match Announcement::verify(&record.value, &lookup.peer, SystemTime::now()) {
                // A full queue has the answers of more nodes than there should be.
                Ok(answer) => drop(lookup.found.try_send(answer)),
                Err(error) => {
                    tracing::debug!(peer = %lookup.peer, %node, %error, "a node answered with a bad announcement");
                    let _ = self.observations.send(Observation::Disbelieved { peer: lookup.peer, error });
                }
            }
        }
        if last || lookup.found.is_closed() {
            self.lookups.remove(&id);
            if let Some(mut query) = self.kad().query_mut(&id) {
                query.finish();
            }
        }
    }

    /// A peer that speaks our DHT is put into the routing table at the addresses it listens on, if they are at the
    /// host that it came from: nobody can send our queries to somebody else.
    fn learn_node(&mut self, peer: PeerId, info: &identify::Info) {
        if !info.protocols.contains(&KAD_PROTOCOL) {
            return;
        }
        let remote = peer_id::public_key(&peer).and_then(|key| self.links.address(&key));
        let Some(host) = remote.as_ref().and_then(peer_id::ip) else { return };
        for address in info.listen_addrs.iter().take(MAX_NODE_ADDRESSES) {
            if peer_id::is_dialable(address) && peer_id::ip(address) == Some(host) {
                self.kad().add_address(&peer, address.clone());
                if self.role == NetworkRole::Node
                    && let Some(key) = peer_id::public_key(&peer)
                    && self.nodes.len() < MAX_NODES
                {
                    self.nodes.insert(key);
                    self.links.keep(key);
                }
            }
        }
    }

    fn publish_listeners(&mut self) {
        let confirmed = self.swarm.external_addresses().filter(|address| !peer_id::is_relayed(address));
        let addresses: Arc<[Multiaddr]> = self.swarm.listeners().chain(confirmed).cloned().collect();
        self.listening.send_if_modified(|known| {
            let changed = *known != addresses;
            *known = addresses;
            changed
        });
    }

    fn sweep(&mut self) {
        let now = std::time::Instant::now();
        self.kad().store_mut().retain(|_, record| !record.is_expired(now));
        self.count_records();
        if self.role == NetworkRole::Node {
            self.let_go_of_the_forgotten();
        }
        self.close_strangers();
        for (peer, id) in self.links.superfluous() {
            self.links.remove(peer, id, "there is a better one");
            self.swarm.close_connection(id);
        }
        self.give_up_reservations();
    }

    /// A relay that lost a reservation without our notice grants it no more.
    fn give_up_reservations(&mut self) {
        let dead = |held: &Reservation| held.ended.is_closed() || held.granted_at.elapsed() > relaying::RESERVATION;
        let dead: Vec<_> = self.reservations.iter().filter(|(_, held)| dead(held)).map(|(id, _)| *id).collect();
        for listener in dead {
            self.swarm.remove_listener(listener);
        }
    }

    /// A node keeps links to peers that announce themselves, and to other nodes.
    fn let_go_of_the_forgotten(&mut self) {
        let links = self.links.clone();
        self.nodes.retain(|node| links.path(node).is_some());
        for peer in links.kept() {
            let announced = self.kad().store_mut().get(&record_key(&peer)).is_some();
            if !announced && !self.nodes.contains(&peer) {
                links.let_go(&peer);
            }
        }
    }

    /// A hole punch leaves several connections, and they die together. TCP tells at once that a process is gone, QUIC only
    /// after a long silence in which a circuit or a pull may get lost. A peer that is there after all is soon linked again.
    fn close_others(&mut self, peer: PublicKey) {
        for id in self.links.direct(&peer) {
            tracing::debug!(%peer, "a connection broke: closing another one to the same peer");
            self.links.remove(peer, id, "another connection to it broke");
            self.swarm.close_connection(id);
        }
    }

    /// Whoever dials a node again has lost the connection that it had. A relay would go on to hand it circuits over that
    /// one, for as long as the reservation runs.
    fn close_older(&mut self, new: ConnectionId, peer: PublicKey) {
        if self.role != NetworkRole::Node {
            return;
        }
        let direct = self.links.direct(&peer).into_iter();
        let older: Vec<_> = direct.filter(|old| self.sources.is_older(*old, new)).collect();
        for id in older {
            tracing::debug!(%peer, "the peer is here again: closing its older connection");
            self.links.remove(peer, id, "it connected anew");
            self.swarm.close_connection(id);
        }
    }

    /// Connections from an address that we no longer have are dead, and nothing else tells so for a long time.
    fn close_moved(&mut self) {
        for (id, peer) in self.sources.moved() {
            tracing::debug!(%peer, "our address has changed: closing a connection");
            self.links.remove(peer, id, "our address has changed");
            self.swarm.close_connection(id);
            self.sources.closed(id);
        }
    }

    /// An idle stranger is closed by the swarm; one that keeps busy without ever proving anything, here.
    fn close_strangers(&mut self) {
        let kept = self.links.kept();
        let most = if self.role == NetworkRole::Node { STRANGER_AT_A_NODE } else { STRANGER };
        let due: Vec<(ConnectionId, PublicKey)> = self
            .strangers
            .iter()
            .filter(|(_, (peer, since))| since.elapsed() > most && !kept.contains(peer))
            .map(|(id, (peer, _))| (*id, *peer))
            .collect();
        for (id, peer) in due {
            tracing::debug!(%peer, "closing a connection that proved nothing");
            self.links.remove(peer, id, "it proved nothing");
            self.swarm.close_connection(id);
        }
    }

    fn kad(&mut self) -> &mut kad::Behaviour<kad::store::MemoryStore> {
        &mut self.swarm.behaviour_mut().kad
    }
}

fn record_key(peer: &PublicKey) -> kad::RecordKey {
    kad::RecordKey::new(&wire::record_key(peer))
}

pub(super) fn dial_failure(error: &DialError) -> DialFailure {
    match error {
        DialError::WrongPeerId { obtained, address } => DialFailure::WrongKey {
            address: peer_id::shown(address),
            found: peer_id::public_key(obtained).map_or_else(|| obtained.to_string(), |key| key.to_string()),
        },
        DialError::Transport(attempts) => DialFailure::Unreachable {
            attempts: attempts
                .iter()
                .map(|(address, error)| {
                    let (place, error) = (peer_id::shown(address), why(error));
                    if peer_id::is_relayed(address) {
                        format!("relay at {place}: {error}")
                    } else {
                        format!("{place}: {error}")
                    }
                })
                .collect(),
        },
        other => DialFailure::Unreachable { attempts: vec![other.to_string()] },
    }
}

/// Why there is no connection or reservation: what the relay or the operating system said.
pub(super) fn why(error: &(dyn std::error::Error + 'static)) -> String {
    refusal::by_relay(error).map_or_else(|| innermost(error), str::to_owned)
}

/// libp2p wraps transport errors many times over; what the operating system said is at the bottom.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

const MOST_KEPT: Duration = Duration::from_secs(60 * 60);
const SWEEP_EVERY: Duration = Duration::from_secs(10);
const SETTLED: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long somebody may be connected to a scraper without registering.
const STRANGER: Duration = Duration::from_secs(30);
/// Those who look somebody up need a moment, those who announce or are nodes are kept.
const STRANGER_AT_A_NODE: Duration = Duration::from_secs(120);
/// Other nodes that a node keeps links to.
const MAX_NODES: usize = 256;
const CLOSE_GRACE: Duration = Duration::from_millis(500);
const MAX_NODE_ADDRESSES: usize = 16;
