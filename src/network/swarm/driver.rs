//! The one task that owns the swarm.
//!
//! The driver carries out commands, handles the swarm's events, and closes connections that are dead although nothing
//! shows it: those that a peer left behind when it came back, those on an address that we no longer have, those that
//! nobody needs. It waits for nothing but the swarm, its inbox and the answers of connections that may be dead; streams bypass it. The state of a connection is in the
//! table of links.

use std::{collections::HashMap, mem, time::Duration};

use futures::{
    StreamExt,
    stream::{BoxStream, SelectAll},
};
#[cfg(feature = "scraper")]
use libp2p::relay;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::ConnectedPoint,
    dcutr, identify, kad, ping,
    swarm::{
        ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
#[cfg(feature = "scraper")]
use tokio::sync::broadcast;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "node")]
use crate::network::swarm::{dht_server::DhtServer, node_stats::NodeStats};
#[cfg(feature = "scraper")]
use crate::network::{
    failure::NoReservation,
    observation::{Observation, PeerKind},
    swarm::held::HeldReservations,
};
use crate::{
    identity::PublicKey,
    network::{
        address,
        command::Command,
        config::NetworkRole,
        failure::DialFailure,
        host::HostChanges,
        links::{status::LinkTransport, table::Links, tested},
        peer_id,
        reach::Reach,
        swarm::{
            boxed::Boxed,
            build::{Behaviour, BehaviourEvent},
            dht::{Dht, Kad},
            probes::Probes,
        },
    },
};

/// Between sweeps of all connections and reservations: to close one some seconds late does no harm.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// After a change of our addresses, connections are looked at once a second, this number of times: a new address comes
/// before the route that makes it the one to use.
const LOOKS: u8 = 10;
/// Between two of these looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Connections that are closed cleanly at the end take one round trip.
const CLOSE_GRACE: Duration = Duration::from_millis(500);
/// Public addresses of a relayed peer that are dialled. Nobody checks how many a peer claims.
const MAX_DIRECT_DIALS: usize = 4;
/// A connection that breaks sooner may have been refused: a side that has too many ends one as soon as it is there.
const SETTLED: Duration = Duration::from_secs(2);
/// Longer than it takes to dial a peer in several ways at once.
const REPLACED_AFTER: Duration = Duration::from_secs(5);
/// How long a peer may be connected to a scraper without registering.
const STRANGER: Duration = Duration::from_secs(30);
/// Peers that look another one up need a moment; those that announce, and nodes, are kept.
const STRANGER_AT_A_NODE: Duration = Duration::from_secs(120);

pub(crate) struct Driver {
    swarm: Swarm<Boxed<Behaviour>>,
    commands: mpsc::Receiver<Command>,
    links: Links,
    reach: watch::Sender<Reach>,
    /// Receives what peers report.
    #[cfg(feature = "scraper")]
    observations: Option<broadcast::Sender<Observation>>,
    role: NetworkRole,
    /// Dials that run, by the connection that they may become.
    dials: HashMap<ConnectionId, oneshot::Sender<Result<Multiaddr, DialFailure>>>,
    dht: Dht,
    #[cfg(feature = "node")]
    served: Option<Served>,
    #[cfg(feature = "scraper")]
    reservations: HeldReservations,
    /// At a node: connections that peers may have replaced.
    probes: Probes,
    /// The operator's external addresses.
    external: Vec<Multiaddr>,
    /// Looks at connections that are still due after a change of our addresses.
    looks: u8,
    host: watch::Receiver<HostChanges>,
    /// The ways of this host that the connections were last tested for.
    ways: u64,
    /// Connections under test that turn out to be silent.
    silent: SelectAll<BoxStream<'static, (PublicKey, ConnectionId)>>,
}

#[cfg(feature = "node")]
struct Served {
    dht: DhtServer,
    stats: NodeStats,
}

impl Driver {
    pub(crate) fn new(
        swarm: Swarm<Boxed<Behaviour>>,
        commands: mpsc::Receiver<Command>,
        links: Links,
        reach: watch::Sender<Reach>,
        role: NetworkRole,
        dht: Dht,
        host: watch::Receiver<HostChanges>,
    ) -> Self {
        Self {
            swarm,
            commands,
            links,
            reach,
            #[cfg(feature = "scraper")]
            observations: None,
            role,
            dials: HashMap::new(),
            dht,
            #[cfg(feature = "node")]
            served: None,
            #[cfg(feature = "scraper")]
            reservations: HeldReservations::default(),
            probes: Probes::default(),
            external: Vec::new(),
            looks: 0,
            host,
            ways: 0,
            silent: SelectAll::new(),
        }
    }

    #[cfg(feature = "scraper")]
    pub(crate) fn report_to(&mut self, observations: broadcast::Sender<Observation>) {
        self.dht.report_to(observations.clone());
        self.observations = Some(observations);
    }

    /// Serves the DHT as a node, and counts what the node does for others.
    #[cfg(feature = "node")]
    pub(crate) fn serve(&mut self, dht: DhtServer, stats: NodeStats) {
        self.served = Some(Served { dht, stats });
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
                _ = look.tick(), if self.looks > 0 => self.close_moved(),
                Ok(()) = self.host.changed() => self.on_host_changed(),
                Some((peer, id)) = self.silent.next() => self.close_silent(peer, id),
                command = self.commands.recv() => match command {
                    Some(command) => self.handle(command),
                    None => break,
                },
                dead = self.probes.dead() => self.give_up(dead, "the peer connected again"),
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

    fn sweep(&mut self) {
        #[cfg(feature = "node")]
        if let Some(served) = &mut self.served {
            served.dht.sweep(&mut self.swarm.behaviour_mut().0.kad);
        }
        self.close_strangers();
        self.give_up_all(self.links.superfluous(), "there is a better one");
        #[cfg(feature = "scraper")]
        self.reservations.sweep(&mut self.swarm);
    }

    fn kad(&mut self) -> &mut Kad {
        &mut self.swarm.behaviour_mut().0.kad
    }
}

/// Commands.
impl Driver {
    fn handle(&mut self, command: Command) {
        match command {
            Command::Dial { peer, addresses, reply } => self.dial(peer, addresses, reply),
            Command::Lookup { peer, found } => self.dht.look_up(&mut self.swarm.behaviour_mut().0.kad, peer, found),
            #[cfg(feature = "scraper")]
            Command::Put { peer, signed, to, done } => self.dht.put(&mut self.swarm, &peer, signed, to, done),
            #[cfg(feature = "node")]
            Command::Follow { peer, latest } => {
                if let Some(served) = &mut self.served {
                    let _ = latest.send(served.dht.follow(&mut self.swarm.behaviour_mut().0.kad, peer));
                }
            }
            #[cfg(feature = "node")]
            Command::Unfollow { peer } => {
                if let Some(served) = &mut self.served {
                    served.dht.unfollow(&peer);
                }
            }
            Command::AddNode { peer, address } => {
                self.kad().add_address(&peer_id::peer_id(&peer), address);
            }
            #[cfg(any(feature = "scraper", feature = "node"))]
            Command::External { addresses } => self.set_external(addresses),
            #[cfg(feature = "scraper")]
            Command::Reserve { link, accepted, ended } => self.reserve(link.0, accepted, ended),
            Command::Disconnect { peer, link } => self.disconnect(peer, link.0),
            #[cfg(any(feature = "scraper", feature = "client"))]
            Command::Test { connections } => self.silent.push(tested::silent(&self.links, connections)),
            #[cfg(feature = "scraper")]
            Command::Close { link, why } => self.give_up(link.0, why),
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

    #[cfg(feature = "scraper")]
    fn reserve(&mut self, id: ConnectionId, accepted: oneshot::Sender<()>, ended: oneshot::Sender<NoReservation>) {
        let Some((relay, at)) = self.links.listed(id) else {
            let _ = ended.send(NoReservation::lost("not connected"));
            return;
        };
        let alias = self.swarm.behaviour_mut().0.relay_client.0.alias(peer_id::peer_id(&relay), id, at.clone());
        self.reservations.ask(&mut self.swarm, at, alias, accepted, ended);
    }

    /// Replaces the addresses that the operator's external ones resolve to.
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

    fn publish_reach(&mut self) {
        let reach = Reach::new(self.swarm.listeners(), self.swarm.external_addresses(), self.external.clone());
        self.reach.send_if_modified(|known| mem::replace(known, reach) != *known);
    }
}

/// Events.
impl Driver {
    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { connection_id, endpoint, peer_id, .. } => {
                #[cfg(feature = "node")]
                if let Some(served) = &mut self.served {
                    served.dht.on_link(&peer_id, true);
                }
                #[cfg(not(feature = "node"))]
                let _ = peer_id;
                if endpoint.is_listener() && self.role.is_node() {
                    // A peer that dials a node again wants another connection, or has lost the one that it had. A relay
                    // would go on to hand it circuits over that one, for as long as the reservation runs.
                    for older in self.links.replaced_by(connection_id, REPLACED_AFTER) {
                        self.probes.ask(&self.links, older);
                    }
                }
                if let Some(reply) = self.dials.remove(&connection_id) {
                    self.links.update(connection_id, |connection| connection.requested = true);
                    let _ = reply.send(Ok(address::without_peer(endpoint.get_remote_address())));
                }
            }
            SwarmEvent::ConnectionClosed { connection_id, peer_id, endpoint, num_established, cause } => {
                self.on_closed(connection_id, &endpoint, cause.is_some());
                if num_established == 0 && self.role.is_node() {
                    // Nodes keep their links: this one has ended, and nobody who asks us is to be sent there. A node that
                    // comes back is met again.
                    self.kad().remove_peer(&peer_id);
                    #[cfg(feature = "node")]
                    if let Some(served) = &mut self.served {
                        served.dht.on_link(&peer_id, false);
                    }
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                if let Some(peer) = peer_id.filter(|peer| !self.swarm.is_connected(peer)) {
                    // A dead node would cost every later query a timeout. The task that keeps a link to it adds it again.
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
                // The peers that a relay makes reachable have to know where the relay is. A scraper that knows the public
                // address of its client need not punch a hole. A client's other addresses are nobody's business; a
                // scraper announces its addresses, and has itself dialled back.
                if !self.role.is_scraper() && !address::is_private(&address) {
                    self.swarm.add_external_address(address);
                }
                self.looks = LOOKS;
                self.publish_reach();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                if !self.external.contains(&address) {
                    self.swarm.remove_external_address(&address);
                }
                self.looks = LOOKS;
                self.publish_reach();
            }
            SwarmEvent::ExternalAddrConfirmed { .. } | SwarmEvent::ExternalAddrExpired { .. } => {
                self.publish_reach();
            }
            SwarmEvent::ListenerClosed { listener_id, reason, addresses } => {
                #[cfg(feature = "scraper")]
                let ours = self.reservations.on_closed(listener_id, &reason);
                #[cfg(not(feature = "scraper"))]
                let (ours, _) = (false, listener_id);
                if let (false, Err(error)) = (ours, reason) {
                    tracing::error!(%error, ?addresses, "a listener closed");
                }
                self.publish_reach();
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!(%error, "listener error"),
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => self.on_kad(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            })) => self.on_identify(connection_id, peer_id, &info),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping)) => self.on_ping(ping),
            #[cfg(feature = "scraper")]
            SwarmEvent::Behaviour(BehaviourEvent::RelayClient(relay::client::Event::ReservationReqAccepted {
                relay_peer_id,
                ..
            })) => self.reservations.on_granted(relay_peer_id),
            SwarmEvent::Behaviour(BehaviourEvent::Dcutr(dcutr::Event { remote_peer_id, result })) => {
                tracing::debug!(peer = %remote_peer_id, ?result, "a hole punch ended");
                if let (Some(peer), Err(_)) = (peer_id::public_key(&remote_peer_id), result) {
                    self.links.punch_failed(&peer);
                }
            }
            #[cfg(feature = "node")]
            SwarmEvent::Behaviour(BehaviourEvent::NatServer(asked)) => {
                if let Some(served) = &self.served {
                    served.stats.update(|counts| match asked.result {
                        Ok(()) => counts.dial_backs += 1,
                        Err(_) => counts.dial_backs_failed += 1,
                    });
                }
            }
            #[cfg(feature = "scraper")]
            SwarmEvent::Behaviour(BehaviourEvent::NatClient(tested)) => {
                tracing::debug!(address = %tested.tested_addr, result = ?tested.result, "a node dialled us back");
                #[cfg(feature = "cli")]
                if let Some(address) = address::socket_addr(&tested.tested_addr) {
                    let (transport, reached) = (LinkTransport::of(&tested.tested_addr), tested.result.is_ok());
                    self.observe(Observation::DialledBack { address, transport, reached });
                }
            }
            _ => {}
        }
    }

    fn on_kad(&mut self, event: kad::Event) {
        let kad = &mut self.swarm.behaviour_mut().0.kad;
        match event {
            #[cfg(feature = "node")]
            kad::Event::InboundRequest { request } => {
                if let Some(served) = &mut self.served {
                    served.dht.on_request(kad, request);
                }
            }
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.dht.on_progress(kad, id, result, step.last);
            }
            _ => {}
        }
    }

    fn on_identify(&mut self, id: ConnectionId, peer: PeerId, info: &identify::Info) {
        let report = self.links.update(id, |connection| {
            let may_be_direct = mem::take(&mut connection.may_be_direct);
            (mem::take(&mut connection.requested), connection.from_our_port, may_be_direct)
        });
        let (requested, from_our_port, may_be_direct) = report.unwrap_or_default();
        // Reports of peers that we wanted to reach count, once each.
        if requested && from_our_port && address::is_plain(&info.observed_addr) {
            self.swarm.behaviour_mut().0.identify.0.add_candidate(info.observed_addr.clone());
        }
        self.links.on_identified(id);
        #[cfg(feature = "scraper")]
        if let Some(key) = peer_id::public_key(&peer) {
            self.observe(Observation::Identified {
                peer: key,
                #[cfg(feature = "cli")]
                transport: LinkTransport::of(&info.observed_addr),
                seen_at: address::socket_addr(&info.observed_addr).filter(|_| from_our_port),
                kind: PeerKind::of(&info.protocols),
            });
        }
        if may_be_direct {
            self.dial_straight(peer, info);
        }
        for own in self.dht.node_addresses(&self.links, &peer, info) {
            self.kad().add_address(&peer, own);
        }
        #[cfg(feature = "node")]
        if let Some(served) = self.served.as_mut().filter(|_| Dht::is_node(info)) {
            served.dht.on_node(&peer);
        }
    }

    #[cfg(feature = "scraper")]
    fn observe(&self, observation: Observation) {
        if let Some(observations) = &self.observations {
            let _ = observations.send(observation); // mostly nobody listens
        }
    }

    fn on_ping(&mut self, ping::Event { peer, connection, result }: ping::Event) {
        let Some(key) = peer_id::public_key(&peer) else { return };
        match result {
            Ok(rtt) => self.links.measured(connection, rtt),
            Err(error) => {
                // "Unsupported" too: every narthex peer answers pings.
                tracing::debug!(%peer, %error, "ping failed");
                self.give_up(connection, &format!("ping: {error}"));
                self.close_carried(key);
            }
        }
    }

    /// A process that dies takes all its TCP connections along: while one is left, this one was closed on purpose. So may
    /// the last be: a side that has too many connections ends one as soon as it is there, and a node closes connections
    /// that a passer-by leaves idle.
    fn on_closed(&mut self, id: ConnectionId, endpoint: &ConnectedPoint, broken: bool) {
        let Some(closed) = self.links.forget(id) else { return };
        if broken
            && closed.local_end.is_some()
            && address::is_tcp(endpoint.get_remote_address())
            && closed.since.elapsed() > SETTLED
            && self.links.is_kept(&closed.peer)
            && self.links.transports(&closed.peer).iter().all(|left| *left == LinkTransport::Quic)
        {
            self.close_others(closed.peer);
        }
    }
}

/// Closing.
impl Driver {
    /// Closes a connection, at once for everybody here: a dead one cannot be closed cleanly, as that waits for the peer.
    fn give_up(&mut self, id: ConnectionId, why: &str) {
        tracing::debug!(%id, why, "closing a connection");
        self.links.unlist(id, why);
        self.swarm.close_connection(id);
    }

    fn give_up_all(&mut self, connections: Vec<ConnectionId>, why: &str) {
        connections.into_iter().for_each(|id| self.give_up(id, why));
    }

    /// A connection answers nothing. Others to the same peer are as dead, unless this one was a circuit.
    fn disconnect(&mut self, peer: PublicKey, id: ConnectionId) {
        let direct = self.links.direct(&peer).contains(&id);
        self.give_up(id, "it answered nothing");
        if direct {
            self.close_others(peer);
        }
        self.close_carried(peer);
    }

    /// Circuits end with the last connection to the relay that carried them: they would otherwise be missed one by one.
    fn close_carried(&mut self, relay: PublicKey) {
        if self.links.direct(&relay).is_empty() {
            self.give_up_all(self.links.through(&relay), "the relay no longer answers");
        }
    }

    /// A hole punch leaves several connections, and they die together. A TCP connection ends as soon as the process is
    /// gone, a QUIC one only after its idle timeout, in which a circuit or a pull may get lost. A peer that is there after all
    /// is soon linked again.
    fn close_others(&mut self, peer: PublicKey) {
        self.give_up_all(self.links.direct(&peer), "another connection to the peer broke");
    }

    /// Connections from an address that we no longer have are dead, and nothing else shows it for a long time.
    fn close_moved(&mut self) {
        self.looks = self.looks.saturating_sub(1);
        for (peer, id) in self.links.moved() {
            self.give_up(id, "our address has changed");
            self.close_carried(peer);
        }
    }

    /// A route that has changed may lead through another router, which knows nothing of the connections that there are.
    fn on_host_changed(&mut self) {
        self.looks = LOOKS;
        self.close_moved();
        let ways = self.host.borrow_and_update().ways;
        if std::mem::replace(&mut self.ways, ways) != ways {
            self.silent = [tested::silent(&self.links, self.links.all())].into_iter().collect();
        }
    }

    /// Each connection is tested by itself, so others to the peer may be well.
    fn close_silent(&mut self, peer: PublicKey, id: ConnectionId) {
        self.give_up(id, "it answered no ping");
        self.close_carried(peer);
    }

    /// The swarm closes idle strangers; those that keep busy without ever proving anything are closed here. So are
    /// connections that a node has opened beside the link that we made, to test whether we can be reached.
    fn close_strangers(&mut self) {
        let most = if self.role.is_node() { STRANGER_AT_A_NODE } else { STRANGER };
        self.give_up_all(self.links.strangers(most), "the peer proved nothing");
    }

    /// Dials the public addresses of a peer that came through a relay. With a public address there is no hole to punch, and
    /// a dial from here, where libp2p has both ends dial, gets through any NAT or firewall on our side. (The first step of
    /// DCUtR, which libp2p leaves out.)
    fn dial_straight(&mut self, peer: PeerId, info: &identify::Info) {
        let punches = self.swarm.behaviour().0.dcutr.is_enabled();
        // A node that dials us back comes through relays, too.
        let linked = peer_id::public_key(&peer).is_none_or(|key| !self.links.direct(&key).is_empty());
        if !punches || linked {
            return;
        }
        let public = |own: &&Multiaddr| address::is_plain(own) && !address::is_private(own);
        let addresses: Vec<_> = info.listen_addrs.iter().filter(public).take(MAX_DIRECT_DIALS).cloned().collect();
        if !addresses.is_empty() {
            tracing::debug!(%peer, ?addresses, "dialling a relayed peer straight");
            // From another port than the hole punch that goes on meanwhile. The port also marks an address that only the
            // peer reports (`transport/tcp.rs`).
            let options = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses);
            if let Err(error) = self.swarm.dial(options.allocate_new_port().build()) {
                tracing::debug!(%peer, %error, "cannot dial a relayed peer at its public address");
            }
        }
    }
}
