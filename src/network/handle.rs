//! The `Network` handle: everything that one may ask of the network.
//!
//! What one role alone asks is in a file of its own below. The tasks in [`upkeep`](super::upkeep) are run beside it by the roles that
//! need them.

#[cfg(feature = "scraper")]
mod announcing;
#[cfg(feature = "cli")]
mod diagnosing;
#[cfg(feature = "node")]
mod followed;
#[cfg(any(feature = "scraper", feature = "node"))]
mod serving;

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
        config::{NetworkConfig, NetworkRole, check_bootstrap},
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
        check_bootstrap(key.public(), &config.bootstrap)?;
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

    /// Tests every connection to a peer: those that answer no ping are closed.
    #[cfg(feature = "client")]
    pub(crate) async fn test(&self, peer: &PublicKey) {
        let connections = self.links().all_to(peer);
        if !connections.is_empty() {
            let _ = self.dialler.command(Command::Test { connections }).await;
        }
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

    /// Closes every connection to a peer.
    #[cfg(feature = "scraper")]
    pub(crate) async fn close_all(&self, peer: &PublicKey, why: &'static str) {
        for (_, id) in self.links().all_to(peer) {
            self.close(LinkId(id), why).await;
        }
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
