//! The `Network` handle: everything that one may ask of the network.
//!
//! The tasks in [`upkeep`](super::upkeep) are run beside it by the roles that need them.

#[cfg(any(feature = "scraper", feature = "node"))]
use std::net::SocketAddr;
use std::{io, sync::Arc};

use libp2p::StreamProtocol;
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "scraper")]
use crate::network::observation::Observation;
#[cfg(feature = "mdns")]
use crate::network::swarm::nearby;
#[cfg(feature = "node")]
use crate::network::swarm::{dht_server::DhtServer, node_stats::NodeStats};
#[cfg(any(feature = "scraper", feature = "node"))]
use crate::network::transport::inbound::InboundCounters;
use crate::{
    identity::{DialAddress, KeyPair, PeerAddr, PublicKey},
    network::{
        address,
        command::Command,
        config::{NetworkConfig, NetworkRole},
        error::{ConnectError, NetworkError},
        failure,
        host::{self, HostChanges},
        links::{
            acceptor::{Acceptor, FirewallBlock},
            address_book::AddressBook,
            connection::{LinkId, OpenError},
            dial::{Dialler, LISTEN_WAIT},
            proved::ProvedNetworks,
            stream::LinkStream,
            table::Links,
        },
        peer_id,
        reach::Reach,
        swarm::{
            build::{self, Parts},
            dht::Dht,
            driver::Driver,
            stream_behaviour,
        },
        transport::{answered::Answered, listen, proxy::Proxies, resolve},
    },
    telemetry::Refusals,
    wire::Announcement,
};

/// Commands that wait for the swarm's task; a caller that sends more waits.
const COMMAND_QUEUE: usize = 256;
/// Refused strangers' streams that a slow receiver may fall behind by.
const BLOCKS_KEPT: usize = 256;
/// Observations that a slow receiver may fall behind by.
#[cfg(feature = "scraper")]
const OBSERVATIONS_KEPT: usize = 256;

/// A handle to the network. Cheap to clone; the task ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Network {
    pub(super) dialler: Dialler,
    blocks: broadcast::Sender<FirewallBlock>,
    #[cfg(feature = "scraper")]
    observations: broadcast::Sender<Observation>,
    /// The addresses that we listen on, plain TCP and QUIC.
    #[cfg(any(feature = "scraper", feature = "node"))]
    bound: Arc<[SocketAddr]>,
    #[cfg(any(feature = "scraper", feature = "node"))]
    external: Arc<[DialAddress]>,
    #[cfg(any(feature = "scraper", feature = "node"))]
    inbound: Arc<InboundCounters>,
    #[cfg(any(feature = "scraper", feature = "node"))]
    refusals: Arc<Refusals>,
    #[cfg(feature = "node")]
    stats: NodeStats,
    /// From where secrets were proved lately.
    #[cfg(feature = "scraper")]
    pub(super) proved: Arc<ProvedNetworks>,
    /// How many nodes were seen to hold our announcement.
    #[cfg(feature = "scraper")]
    announced: Arc<watch::Sender<usize>>,
}

/// The task that must run for a [`Network`] to work.
pub(crate) struct NetworkTask {
    driver: Driver,
    host: Arc<watch::Sender<HostChanges>>,
}

impl NetworkTask {
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.driver.run(stop) => {}
            never = host::watch(&self.host) => match never {},
        }
    }
}

/// Start.
impl Network {
    /// Starts listening. Nothing is accepted until the task runs.
    ///
    /// # Errors
    /// [`NetworkError`], before anything was announced or dialled.
    pub(crate) async fn start(
        key: &KeyPair,
        mut config: NetworkConfig,
        acceptors: Vec<Acceptor>,
    ) -> Result<(Self, NetworkTask), NetworkError> {
        if let Some(node) = config.bootstrap.iter().find(|node| node.hint.is_none()) {
            return Err(NetworkError::BootstrapAddress(node.key));
        }
        if config.bootstrap.iter().any(|node| node.key == key.public()) {
            return Err(NetworkError::BootstrapSelf(key.public()));
        }
        let proved = Arc::new(ProvedNetworks::open(config.proved_file.take()));
        let links = Links::new();
        if !config.role.is_scraper() {
            links.know([]); // a scraper reads its table first
        }
        let blocks = broadcast::Sender::new(BLOCKS_KEPT);
        #[cfg(feature = "scraper")]
        let observations = broadcast::Sender::new(OBSERVATIONS_KEPT);
        let keypair = peer_id::keypair(key);
        #[cfg(feature = "mdns")]
        let nearby = config.mdns.then(|| Arc::new(watch::Sender::default()));
        let parts = Parts {
            streams: stream_behaviour::Behaviour::new(links.clone(), acceptors, blocks.clone(), config.role),
            links: links.clone(),
            inbound: Arc::default(),
            refusals: Arc::new(Refusals::new()),
            proved: Arc::clone(&proved),
            #[cfg(feature = "node")]
            stats: NodeStats::default(),
            proxies: Arc::new(Proxies::from_env()),
            answered: Answered::new(),
            #[cfg(feature = "mdns")]
            nearby: nearby
                .as_ref()
                .map(|found| {
                    nearby::Behaviour::new(keypair.public().to_peer_id(), config.role, Arc::clone(found), links.clone())
                })
                .transpose()
                .map_err(NetworkError::Mdns)?,
        };
        #[cfg(any(feature = "scraper", feature = "node"))]
        let (inbound, refusals) = (Arc::clone(&parts.inbound), Arc::clone(&parts.refusals));
        let (proxies, answered) = (Arc::clone(&parts.proxies), parts.answered.clone());
        #[cfg(feature = "node")]
        let stats = parts.stats.clone();
        let mut swarm = build::build(keypair, &config, parts)?;

        let mut bound = Vec::new();
        for given in &listen::wanted(&config) {
            let failed = |source: io::Error| NetworkError::Listen { address: given.clone(), source };
            for at in listen::addresses(given).await.map_err(failed)? {
                swarm.listen_on(address::tcp(at)).map_err(|error| failed(failure::os_error(&error)))?;
                swarm.listen_on(address::quic(at)).map_err(|error| failed(failure::os_error(&error)))?;
                bound.push(at);
            }
        }
        if bound.is_empty() && config.listen_ws.is_empty() && config.role != NetworkRole::Client {
            return Err(NetworkError::NoListen);
        }
        for address in listen::websockets(&config.listen_ws).await? {
            swarm.listen_on(address).map_err(|source| NetworkError::Transport { source: source.into() })?;
        }
        let external = resolve::external(&config.external).await?;

        let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
        let (reach_sender, reach) = watch::channel(Reach::default());
        let host = Arc::new(watch::Sender::default());
        let dht = Dht::new(config.nodes());
        let mut driver = Driver::new(swarm, inbox, links.clone(), reach_sender, config.role, dht, host.subscribe());
        #[cfg(feature = "scraper")]
        driver.report_to(observations.clone());
        #[cfg(feature = "node")]
        if config.role.is_node() {
            let dht = DhtServer::new(links.clone(), stats.clone(), Arc::clone(&refusals), &config.limits);
            driver.serve(dht, stats.clone());
        }
        driver.set_external(external);
        let dialler = Dialler {
            commands,
            links,
            role: config.role,
            bootstrap: config.bootstrap.into(),
            addresses: Arc::new(match config.addresses_read_only {
                true => AddressBook::read_only(config.addresses_file),
                false => AddressBook::open(config.addresses_file),
            }),
            proxies,
            answered,
            crowded: Arc::default(),
            reach,
            host: Arc::clone(&host),
            listeners_by: (!bound.is_empty()).then(|| Instant::now() + LISTEN_WAIT),
            #[cfg(feature = "mdns")]
            nearby,
        };
        let network = Self {
            dialler,
            blocks,
            #[cfg(feature = "scraper")]
            observations,
            #[cfg(any(feature = "scraper", feature = "node"))]
            bound: bound.into(),
            #[cfg(any(feature = "scraper", feature = "node"))]
            external: config.external.into(),
            #[cfg(any(feature = "scraper", feature = "node"))]
            inbound,
            #[cfg(any(feature = "scraper", feature = "node"))]
            refusals,
            #[cfg(feature = "node")]
            stats,
            #[cfg(feature = "scraper")]
            proved,
            #[cfg(feature = "scraper")]
            announced: Arc::new(watch::Sender::new(0)),
        };
        Ok((network, NetworkTask { driver, host }))
    }
}

/// Peers and their links.
impl Network {
    /// Who is linked.
    pub(crate) fn links(&self) -> &Links {
        &self.dialler.links
    }

    /// Returns once there is a link to the peer, dialling the peer if there is none.
    pub(crate) async fn connect(&self, peer: &PeerAddr) -> Result<(), ConnectError> {
        if self.links().path(&peer.key).is_some() {
            return Ok(());
        }
        self.connect_anew(peer).await
    }

    /// As [`connect`](Self::connect), to a peer that has any number of given dial addresses.
    #[cfg(feature = "scraper")]
    pub(crate) async fn connect_at(&self, peer: PublicKey, given: &[DialAddress]) -> Result<(), ConnectError> {
        if self.links().path(&peer).is_some() {
            return Ok(());
        }
        self.dialler.connect_at(peer, given).await
    }

    /// Dials a peer, linked or not: for a better link than the one there is.
    pub(crate) async fn connect_anew(&self, peer: &PeerAddr) -> Result<(), ConnectError> {
        self.dialler.connect(peer).await
    }

    /// Dials a peer that is linked over QUIC over TCP, which then takes over.
    pub(crate) async fn connect_over_tcp(&self, peer: &PeerAddr) -> Result<(), ConnectError> {
        self.dialler.connect_over_tcp(peer.key).await
    }

    /// Further addresses to dial a peer at, from now on these and no others.
    pub(crate) fn hint(&self, peer: PublicKey, addresses: Vec<DialAddress>) {
        self.dialler.addresses.hint(peer, addresses);
    }

    /// Opens a stream to a linked peer.
    pub(crate) async fn open(&self, peer: &PublicKey, protocol: &'static str) -> Result<LinkStream, OpenError> {
        self.links().open(peer, StreamProtocol::new(protocol)).await
    }

    /// Gives up a connection that answers nothing, and if it is direct the other direct ones to the same peer: their streams
    /// end at once.
    pub(crate) async fn disconnect(&self, peer: PublicKey, link: LinkId) {
        let _ = self.dialler.command(Command::Disconnect { peer, link }).await;
    }

    /// Tests the connections that are used before the one that a peer holds for its best: after a change of its network it
    /// may have left them behind, and nothing else shows it.
    #[cfg(feature = "scraper")]
    pub(crate) async fn test_before(&self, peer: &PublicKey, link: LinkId) {
        let connections = self.links().before(peer, link);
        if !connections.is_empty() {
            let _ = self.dialler.command(Command::Test { connections }).await;
        }
    }

    /// Closes one connection to a peer, and no other.
    #[cfg(feature = "scraper")]
    pub(crate) async fn close(&self, link: LinkId, why: &'static str) {
        let _ = self.dialler.command(Command::Close { link, why }).await;
    }

    /// Opens a stream over one connection to a peer.
    #[cfg(feature = "scraper")]
    pub(crate) async fn open_over(&self, link: LinkId, protocol: &'static str) -> Result<LinkStream, OpenError> {
        self.links().open_over(link, StreamProtocol::new(protocol)).await
    }

    /// The bootstrap nodes.
    pub(crate) fn bootstrap(&self) -> &[PeerAddr] {
        &self.dialler.bootstrap
    }

    /// Links a node, unless it is linked, and puts it into the routing table.
    pub(crate) async fn link_node(&self, node: &PeerAddr) -> Result<(), ConnectError> {
        self.dialler.link_node(node).await
    }

    /// Dials a peer where it announces itself.
    pub(crate) async fn connect_announced(&self, announcement: Announcement) -> Result<(), ConnectError> {
        self.dialler.connect_announced(announcement).await
    }

    /// Changes of this host's network.
    pub(crate) fn host_changes(&self) -> watch::Receiver<HostChanges> {
        self.dialler.host.subscribe()
    }

    /// Strangers' streams that were refused.
    pub(crate) fn blocks(&self) -> broadcast::Receiver<FirewallBlock> {
        self.blocks.subscribe()
    }
}

/// What a scraper or a node asks: its own addresses, and its bootstrap nodes.
#[cfg(any(feature = "scraper", feature = "node"))]
mod serving {
    use std::{net::SocketAddr, sync::Arc};

    use tokio::time;

    use super::Network;
    #[cfg(feature = "node")]
    use crate::network::swarm::node_stats::NodeCounts;
    use crate::{
        identity::DialAddress,
        network::{
            address,
            command::Command,
            error::NetworkError,
            reach::Reach,
            transport::{inbound::InboundCounts, resolve},
        },
        telemetry::Refusals,
    };

    impl Network {
        /// The addresses that we listen on, plain TCP and QUIC: all of this host's, where the configuration gives `0.0.0.0` or `::`.
        pub(crate) fn listening(&self) -> &[SocketAddr] {
            &self.bound
        }

        /// Waits for all listeners to have an address, soon after the start.
        pub(crate) async fn listeners_up(&self) {
            let Some(by) = self.dialler.listeners_by else { return };
            let is_up = |reach: &Reach, at: &SocketAddr| {
                let mut own = reach.listeners.iter().filter_map(address::socket_addr);
                own.any(|own| own.port() == at.port() && own.is_ipv4() == at.is_ipv4())
            };
            let mut reach = self.dialler.reach.clone();
            let all = reach.wait_for(|reach| self.bound.iter().all(|at| is_up(reach, at)));
            let _ = time::timeout_at(by, all).await;
        }

        /// The operator's external addresses.
        pub(crate) fn external(&self) -> &[DialAddress] {
            &self.external
        }

        /// Looks the operator's external addresses up again.
        ///
        /// # Errors
        /// [`NetworkError::External`] names the first that does not resolve.
        pub(crate) async fn resolve_external(&self) -> Result<(), NetworkError> {
            let addresses = resolve::external(&self.external).await?;
            let _ = self.dialler.command(Command::External { addresses }).await;
            Ok(())
        }

        /// Connections that others open.
        pub(crate) fn inbound(&self) -> InboundCounts {
            self.inbound.read()
        }

        /// What limits have refused; every part of the process counts here.
        pub(crate) fn refusals(&self) -> &Arc<Refusals> {
            &self.refusals
        }

        /// True while peers can dial in.
        #[cfg(feature = "node")]
        pub(crate) fn is_listening(&self) -> bool {
            !self.dialler.reach.borrow().listeners.is_empty()
        }

        /// Returns once we know an address of ours that means something everywhere.
        #[cfg(feature = "node")]
        pub(crate) async fn public_address(&self) {
            if self.external.is_empty() {
                let public = |reach: &Reach| reach.direct().any(|address| !address::is_private(address));
                let _ = self.dialler.reach.clone().wait_for(public).await;
            }
        }

        /// True if one of the bootstrap nodes is linked, or there are none.
        #[cfg(feature = "node")]
        pub(crate) fn has_a_node(&self) -> bool {
            self.bootstrap().is_empty() || self.bootstrap().iter().any(|node| self.links().path(&node.key).is_some())
        }

        /// At a node: what it has done for others.
        #[cfg(feature = "node")]
        pub(crate) fn node_counts(&self) -> NodeCounts {
            self.stats.counts()
        }
    }
}

/// What a node asks: whom its followers wait for.
#[cfg(feature = "node")]
mod followed {
    use tokio::sync::{oneshot, watch};

    use super::Network;
    use crate::{identity::PublicKey, network::command::Command};

    impl Network {
        /// The latest announcement of a peer, now and as later ones come. None once the network has ended.
        pub(crate) async fn announced_by(&self, peer: PublicKey) -> Option<watch::Receiver<Option<Vec<u8>>>> {
            let (latest, followed) = oneshot::channel();
            self.dialler.command(Command::Follow { peer, latest }).await.ok()?;
            followed.await.ok()
        }

        /// The receiver that [`announced_by`](Self::announced_by) gave is gone.
        pub(crate) async fn unfollow(&self, peer: PublicKey) {
            let _ = self.dialler.command(Command::Unfollow { peer }).await;
        }
    }
}

/// What a scraper asks: to be found by its key, and to be reached through relays.
#[cfg(feature = "scraper")]
mod announcing {
    use std::time::Duration;

    use tokio::{
        sync::{broadcast, mpsc, oneshot, watch},
        time,
    };

    use super::Network;
    use crate::{
        identity::PublicKey,
        network::{
            command::{Command, Holders},
            error::ConnectError,
            failure::{Closed, NoReservation},
            links::connection::LinkId,
            observation::Observation,
            reach::Reach,
        },
        wire::Announcement,
    };

    /// A relay reports how it sees us within one round trip.
    const IDENTIFY: Duration = Duration::from_secs(1);
    /// A relay grants or refuses a reservation within one round trip.
    const GRANT: Duration = Duration::from_secs(5);

    impl Network {
        /// What peers report, from now on.
        pub(crate) fn observations(&self) -> broadcast::Receiver<Observation> {
            self.observations.subscribe()
        }

        /// Where others may reach us, as it changes.
        pub(crate) fn reach(&self) -> watch::Receiver<Reach> {
            self.dialler.reach.clone()
        }

        /// Asks the DHT where a peer is: the nodes' answers as they come, each verified.
        ///
        /// # Errors
        /// [`ConnectError`] if no bootstrap node can be reached.
        pub(crate) async fn lookup(&self, peer: &PublicKey) -> Result<mpsc::Receiver<Announcement>, ConnectError> {
            self.dialler.lookup(peer).await
        }

        /// Hands our signed announcement to nodes. Returns when they have answered; what they hold shows only in a look-up.
        pub(crate) async fn put(&self, peer: PublicKey, signed: Vec<u8>, to: Holders) {
            let (done, answered) = oneshot::channel();
            if self.dialler.command(Command::Put { peer, signed, to, done }).await.is_ok() {
                let _ = answered.await;
            }
        }

        /// How many nodes hold our announcement: written by the task that announces.
        pub(crate) fn announced_to(&self) -> &watch::Sender<usize> {
            &self.announced
        }

        /// How many nodes held our announcement when they were last asked for it.
        pub(crate) fn holders(&self) -> usize {
            *self.announced.borrow()
        }

        /// Remembers from where a peer came that has proved a secret.
        pub(crate) fn has_proved(&self, peer: &PublicKey) {
            self.links().networks(peer).into_iter().for_each(|network| self.proved.note(network));
        }

        /// Returns once our addresses are in the DHT.
        pub(crate) async fn announced(&self) {
            let _ = self.announced.subscribe().wait_for(|holders| *holders > 0).await;
        }

        /// Asks a node for a reservation, on this connection to it. Returns once the relay has granted it; the receiver gets the reason of its
        /// end, and the reservation is given up when the receiver is dropped.
        pub(crate) async fn reserve(
            &self,
            relay: PublicKey,
            link: LinkId,
        ) -> Result<oneshot::Receiver<NoReservation>, NoReservation> {
            // Circuits come at once, and each takes our addresses along for its punch: they have to be known by then.
            let _ = time::timeout(IDENTIFY, self.links().identified(&relay)).await;
            let (accepted, granted) = oneshot::channel();
            let (ended, mut end) = oneshot::channel();
            self.dialler.command(Command::Reserve { link, accepted, ended }).await?;
            tokio::select! {
                granted = time::timeout(GRANT, granted) => match granted {
                    Ok(Ok(())) => Ok(end),
                    Ok(Err(_)) => Err(end.await.unwrap_or_else(|_| Closed.into())),
                    Err(_) => {
                        // The connection is dead, and blocks a working one.
                        self.close(link, "a relay did not answer on it").await;
                        Err(NoReservation::lost("no answer"))
                    }
                },
                why = &mut end => Err(why.unwrap_or_else(|_| Closed.into())),
            }
        }
    }
}

/// What `narthex doctor` asks.
#[cfg(feature = "cli")]
mod diagnosing {
    use std::{net::SocketAddr, time::Duration};

    use tokio::time;

    use super::Network;
    use crate::{
        identity::{HostPort, PeerAddr, PublicKey},
        network::{
            address, error::ConnectError, failure::NoReservation, links::status::LinkTransport,
            whereabouts::Whereabouts,
        },
    };

    /// After the first answer of a look-up: other nodes answer about as fast, and a dead one would be waited for.
    const LATER_ANSWERS: Duration = Duration::from_secs(1);

    impl Network {
        /// Links a peer at its given dial address alone, over one transport.
        pub(crate) async fn connect_over(&self, peer: &PeerAddr, transport: LinkTransport) -> Result<(), ConnectError> {
            self.dialler.connect_over(peer, transport).await
        }

        /// True if TCP to a host goes through a proxy.
        pub(crate) fn is_proxied(&self, to: &HostPort) -> bool {
            self.dialler.is_proxied(to)
        }

        /// The addresses of this host that we listen on, each with its transport.
        pub(crate) fn ends(&self) -> Vec<(LinkTransport, SocketAddr)> {
            let reach = self.dialler.reach.borrow();
            let own = reach.listeners.iter().filter(|own| address::is_dialable(own));
            own.filter_map(|own| Some((LinkTransport::of(own), address::socket_addr(own)?))).collect()
        }

        /// Asks the DHT where a peer is, and takes the newest announcement that the nodes have.
        ///
        /// # Errors
        /// [`ConnectError`] if no bootstrap node can be reached.
        pub(crate) async fn find(&self, peer: &PublicKey) -> Result<Option<Whereabouts>, ConnectError> {
            let mut answers = self.lookup(peer).await?;
            let Some(mut newest) = answers.recv().await else { return Ok(None) };
            let others = async {
                while let Some(answer) = answers.recv().await {
                    if answer.supersedes(&newest) {
                        newest = answer;
                    }
                }
            };
            // A node that is gone would be waited for until its query ends.
            let _ = time::timeout(LATER_ANSWERS, others).await;
            Ok(Some(newest.into()))
        }

        /// Asks a linked node for a reservation, and gives it up again.
        ///
        /// # Errors
        /// What the node answered.
        pub(crate) async fn try_reservation(&self, relay: PublicKey) -> Result<(), String> {
            let link = self.links().best(&relay).ok_or_else(|| NoReservation::lost("not connected").to_string())?;
            self.reserve(relay, link).await.map(drop).map_err(|why| why.to_string())
        }
    }
}
