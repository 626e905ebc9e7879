//! The `Network` handle: what one may ask of the network.

use std::{io, net::SocketAddr, sync::Arc};

use libp2p::StreamProtocol;
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "mdns")]
use crate::network::swarm::nearby;
use crate::{
    identity::{DialAddress, KeyPair, PeerAddr, PublicKey},
    network::{
        config::{NetworkConfig, NetworkRole},
        error::NetworkError,
        failure,
        links::{
            address_book::AddressBook,
            dial::{self, Failure},
            stream::{LinkId, LinkStream},
            table::{Links, OpenError},
        },
        observation::Observation,
        peer_id,
        reach::Reach,
        swarm::{
            build,
            driver::{Command, Driver},
            limits::{InboundCounters, InboundCounts},
            node_stats::{NodeCounts, NodeStats},
            stream_behaviour::{self, Acceptor, FirewallBlock},
        },
        transport::{listen, proxy::Proxies},
        upkeep::external,
    },
    wire::Announcement,
};

const COMMAND_QUEUE: usize = 256;
/// More than the nodes that hold one announcement.
const ANSWER_QUEUE: usize = 64;
const BLOCKS_KEPT: usize = 256;
const OBSERVATIONS_KEPT: usize = 256;

/// A handle to the network. Cheap to clone; the task ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) links: Links,
    pub(crate) blocks: broadcast::Sender<FirewallBlock>,
    pub(crate) observations: broadcast::Sender<Observation>,
    pub(crate) role: NetworkRole,
    /// Until when dials wait for the listeners; none if there will be none.
    pub(crate) listeners_by: Option<Instant>,
    pub(crate) reach: watch::Receiver<Reach>,
    /// The places that we listen on, plain TCP and QUIC.
    pub(crate) bound: Arc<[SocketAddr]>,
    pub(crate) addresses: Arc<AddressBook>,
    pub(crate) bootstrap: Arc<[PeerAddr]>,
    pub(crate) external: Arc<[DialAddress]>,
    pub(crate) proxies: Arc<Proxies>,
    /// What was heard by mDNS, if we listen to it.
    #[cfg(feature = "mdns")]
    pub(crate) nearby: Option<Arc<watch::Sender<nearby::Nearby>>>,
    pub(crate) inbound: Arc<InboundCounters>,
    /// At a node: what it does for others.
    pub(crate) stats: NodeStats,
    /// How many nodes were seen to hold our announcement.
    pub(crate) announced: Arc<watch::Sender<usize>>,
}

/// The task that must run for a [`Network`] to work.
pub(crate) struct NetworkTask(Driver);

impl NetworkTask {
    pub(crate) async fn run(self, stop: CancellationToken) {
        self.0.run(stop).await;
    }
}

impl Network {
    /// Starts listening. Nothing is accepted until the task runs.
    ///
    /// # Errors
    /// [`NetworkError`], before anything was announced or dialled.
    pub(crate) async fn start(
        key: &KeyPair,
        config: NetworkConfig,
        acceptors: Vec<Acceptor>,
    ) -> Result<(Self, NetworkTask), NetworkError> {
        if let Some(node) = config.bootstrap.iter().find(|node| node.hint.is_none()) {
            return Err(NetworkError::BootstrapAddress(node.key));
        }
        if config.bootstrap.iter().any(|node| node.key == key.public()) {
            return Err(NetworkError::BootstrapSelf(key.public()));
        }
        let links = Links::new();
        let blocks = broadcast::Sender::new(BLOCKS_KEPT);
        let open_to_strangers = config.role != NetworkRole::Client;
        let streams = stream_behaviour::Behaviour::new(links.clone(), acceptors, blocks.clone(), open_to_strangers);
        let (inbound, stats) = (Arc::new(InboundCounters::default()), NodeStats::default());
        let proxies = Arc::new(Proxies::from_env());
        let keypair = peer_id::keypair(key);
        #[cfg(feature = "mdns")]
        let nearby = config.mdns.then(|| Arc::new(watch::Sender::default()));
        #[cfg(feature = "mdns")]
        let behaviour = nearby.as_ref().map(|heard| {
            let local = keypair.public().to_peer_id();
            nearby::Behaviour::new(local, config.role, Arc::clone(heard), links.clone()).map_err(NetworkError::Mdns)
        });
        let mut swarm = build::build(
            keypair,
            &config,
            streams,
            Arc::clone(&inbound),
            stats.clone(),
            Arc::clone(&proxies),
            #[cfg(feature = "mdns")]
            behaviour.transpose()?,
        )?;
        let (places, mut bound) = (listen::places(&config), Vec::new());
        for place in &places {
            let failed = |source: io::Error| NetworkError::Listen { address: place.clone(), source };
            for at in listen::listen_addresses(place).await.map_err(failed)? {
                swarm.listen_on(peer_id::tcp(at)).map_err(|error| failed(failure::os_error(&error)))?;
                swarm.listen_on(peer_id::quic(at)).map_err(|error| failed(failure::os_error(&error)))?;
                bound.push(at);
            }
        }
        if bound.is_empty() && config.listen_ws.is_empty() && config.role != NetworkRole::Client {
            return Err(NetworkError::NoListen);
        }
        for address in listen::websocket_listeners(&config.listen_ws).await? {
            swarm.listen_on(address).map_err(|source| NetworkError::Transport { source: source.into() })?;
        }
        let given = external::resolve(&config.external).await?;
        let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
        let (reach_sender, reach) = watch::channel(Reach::default());
        let observations = broadcast::Sender::new(OBSERVATIONS_KEPT);
        let mut driver =
            Driver::new(swarm, inbox, links.clone(), reach_sender, observations.clone(), stats.clone(), config.role);
        driver.set_external(given);
        let network = Self {
            commands,
            links,
            blocks,
            observations,
            role: config.role,
            listeners_by: (!bound.is_empty()).then(|| Instant::now() + dial::LISTEN_WAIT),
            reach,
            bound: bound.into(),
            addresses: Arc::new(match config.addresses_read_only {
                true => AddressBook::read_only(config.addresses_file),
                false => AddressBook::open(config.addresses_file),
            }),
            bootstrap: config.bootstrap.into(),
            external: config.external.into(),
            inbound,
            proxies,
            #[cfg(feature = "mdns")]
            nearby,
            announced: Arc::new(watch::Sender::new(0)),
            stats,
        };
        Ok((network, NetworkTask(driver)))
    }

    /// Who is linked.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// At a node: what it has done for others.
    pub(crate) fn node_counts(&self) -> NodeCounts {
        self.stats.counts()
    }

    /// True while peers can dial in.
    pub(crate) fn is_listening(&self) -> bool {
        !self.reach.borrow().listeners.is_empty()
    }

    /// True if one of the bootstrap nodes is linked, or there are none.
    pub(crate) fn has_a_node(&self) -> bool {
        self.bootstrap.is_empty() || self.bootstrap.iter().any(|node| self.links.path(&node.key).is_some())
    }

    /// Strangers' streams that were refused.
    pub(crate) fn blocks(&self) -> broadcast::Receiver<FirewallBlock> {
        self.blocks.subscribe()
    }

    /// Opens a stream to a linked peer.
    pub(crate) async fn open(&self, peer: &PublicKey, protocol: &'static str) -> Result<LinkStream, OpenError> {
        self.links.open(peer, StreamProtocol::new(protocol)).await
    }

    /// Gives up a connection that answers nothing, and if it is direct the other direct ones to the same peer: their streams
    /// end at once.
    pub(crate) async fn disconnect(&self, peer: PublicKey, link: LinkId) {
        let _ = self.command(Command::Disconnect { peer, link }).await;
    }

    /// The places that we listen on, plain TCP and QUIC: of each address that this host has, where it was asked for so.
    pub(crate) fn listening(&self) -> &[SocketAddr] {
        &self.bound
    }

    /// Waits for each of them to have an address, soon after the start.
    pub(crate) async fn listeners_up(&self) {
        let Some(by) = self.listeners_by else { return };
        let is_up = |reach: &Reach, at: &SocketAddr| {
            let mut own = reach.listeners.iter().filter_map(peer_id::socket_addr);
            own.any(|own| own.port() == at.port() && own.is_ipv4() == at.is_ipv4())
        };
        let mut reach = self.reach.clone();
        let all = reach.wait_for(|reach| self.bound.iter().all(|at| is_up(reach, at)));
        let _ = time::timeout_at(by, all).await;
    }

    /// Returns once we know an address of ours that means something everywhere.
    pub(crate) async fn public_address(&self) {
        if self.external.is_empty() {
            let public = |reach: &Reach| reach.direct().any(|address| !peer_id::is_private(address));
            let _ = self.reach.clone().wait_for(public).await;
        }
    }

    /// Connections that others open.
    pub(crate) fn inbound(&self) -> InboundCounts {
        self.inbound.read()
    }

    /// How many nodes held our announcement when they were last asked for it.
    pub(crate) fn holders(&self) -> usize {
        *self.announced.borrow()
    }

    /// Returns once our addresses are in the DHT.
    pub(crate) async fn announced(&self) {
        let _ = self.announced.subscribe().wait_for(|holders| *holders > 0).await;
    }

    /// Asks the DHT where a peer is: the nodes' answers as they come, each verified.
    pub(crate) async fn lookup(&self, peer: &PublicKey) -> Result<mpsc::Receiver<Announcement>, Failure> {
        self.reach_a_node().await?;
        let (found, answers) = mpsc::channel(ANSWER_QUEUE);
        self.command(Command::Lookup { peer: *peer, found }).await.map_err(|_| Failure::Closed)?;
        Ok(answers)
    }

    /// Returns once one of the bootstrap nodes is linked and in the routing table.
    async fn reach_a_node(&self) -> Result<(), Failure> {
        let attempts = self.bootstrap.iter().map(|node| Box::pin(self.link_node(node)));
        match futures::future::select_ok(attempts).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn link_node(&self, node: &PeerAddr) -> Result<(), Failure> {
        if self.links.path(&node.key).is_none() {
            self.dial_node(node).await?;
        }
        if let Some(address) = self.links.address(&node.key) {
            self.command(Command::AddNode { peer: node.key, address }).await.map_err(|_| Failure::Closed)?;
        }
        Ok(())
    }

    pub(crate) async fn command(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(command).await.map_err(|_| Closed)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the network is shut down")]
pub(crate) struct Closed;
