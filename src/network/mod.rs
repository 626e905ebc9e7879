//! The peer-to-peer network: one task owns the libp2p swarm, everybody else holds a `Network`.
//!
//! It knows peers by their keys: dials them (by hint, by a remembered address, by the signed announcement in the DHT),
//! keeps links, and opens and accepts streams by protocol and by key. A link is one connection, used in both
//! directions. It knows nothing of aliases or HTTP; libp2p's types do not leave this module.

// A client alone needs neither listeners nor announcements, a service no look from outside.
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]

mod addresses;
mod announcer;
mod config;
mod dial;
mod dial_back;
mod driver;
mod external;
mod failure;
mod identify;
mod limits;
mod link;
mod links;
#[cfg(feature = "mdns")]
mod nearby;
mod node_stats;
mod observation;
mod observed;
mod peer_id;
mod pinger;
mod proxy;
mod reach;
mod relay_handler;
mod relay_server;
mod relaying;
mod reservations;
mod sources;
mod stream;
mod streams;
mod swarm;
mod tcp;
#[cfg(test)]
mod tests;
mod trust;
mod upgrade;

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use libp2p::{Multiaddr, StreamProtocol, core::upgrade::NegotiationError};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

pub use config::NetworkLimits;
pub use dial::ConnectError;
pub use limits::InboundCounts;
pub use link::{LinkChange, LinkCounts, LinkPath, LinkStatus, LinkTransport};
pub use node_stats::{CircuitEnds, CircuitRefusals, NodeCounts, RecordRefusals};
pub use relaying::RelayLimits;

pub(crate) use announcer::{announce, keep_nodes};
pub(crate) use config::{NetworkConfig, NetworkRole};
pub(crate) use dial::resolve;
pub(crate) use external::keep_external;
pub(crate) use links::{LinkEvent, Links, OpenError};
pub(crate) use observation::{Observation, PeerKind, Whereabouts};
pub(crate) use reservations::keep_reservations;
pub(crate) use stream::{LinkId, LinkStream};
pub(crate) use streams::{Acceptor, Firewall, FirewallBlock, InboundStream};
pub(crate) use swarm::MAX_PULL_STREAMS;
pub(crate) use upgrade::keep_upgrading;

use addresses::AddressBook;
use dial::Failure;
use driver::{Command, Driver};
use limits::InboundCounters;
use node_stats::NodeStats;
use proxy::Proxies;
use reach::Reach;

use crate::{
    identity::{DialAddress, HostPort, KeyPair, PeerAddr, PublicKey, WebSocketUrl},
    wire::Announcement,
};

/// HTTP/1.1, scraper asking client.
pub(crate) const PULL_PROTOCOL: &str = "/narthex/pull/1";

/// Why the network could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A listen address is taken, or not ours.
    #[error("cannot listen on {place} (TCP and UDP): {reason}; is another process using it? --listen gives another")]
    Listen {
        /// As it was given.
        place: HostPort,
        /// What the operating system said.
        reason: String,
    },
    /// A place for WebSocket links is taken, or not ours.
    #[error(
        "cannot listen for WebSocket links on {place}: {reason}; is something else using it? --listen-ws gives another"
    )]
    ListenWebSocket {
        /// As it was given.
        place: HostPort,
        /// What the operating system said.
        reason: String,
    },
    /// A scraper or a node that listens nowhere serves nobody.
    #[error("no listen address: a scraper or a node needs at least one, of a family that this host has")]
    NoListen,
    /// A bootstrap node without its place cannot be dialled.
    #[error("bootstrap node {0} needs its place: give it as <key>@<host>:<port>")]
    BootstrapPlace(PublicKey),
    /// A bootstrap node that is this peer itself.
    #[error("--bootstrap {0} is this peer's own key: give another node, or none")]
    BootstrapSelf(PublicKey),
    /// An external address is a name that does not resolve.
    #[error("external address {0} does not resolve")]
    External(DialAddress),
    /// A relay that does not know where it is makes nobody reachable.
    #[error("a relay needs an address that others reach it at: none of ours is public, so give --external HOST:PORT")]
    RelayPlace,
    /// The system does not tell which networks there are.
    #[error("mDNS cannot be used here: {0}")]
    Mdns(io::Error),
    /// The transports could not be set up.
    #[error("cannot set up the transports")]
    Transport {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A handle to the network. Cheap to clone; the task ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Network {
    commands: mpsc::Sender<Command>,
    links: Links,
    blocks: broadcast::Sender<FirewallBlock>,
    observations: broadcast::Sender<Observation>,
    role: NetworkRole,
    /// Until when dials wait for the listeners; none if there will be none.
    listeners_by: Option<Instant>,
    reach: watch::Receiver<Reach>,
    /// The places that we listen on, plain TCP and QUIC.
    bound: Arc<[SocketAddr]>,
    addresses: Arc<AddressBook>,
    bootstrap: Arc<[PeerAddr]>,
    external: Arc<[DialAddress]>,
    proxies: Arc<Proxies>,
    /// What was heard by mDNS, if we listen to it.
    #[cfg(feature = "mdns")]
    nearby: Option<Arc<watch::Sender<nearby::Nearby>>>,
    inbound: Arc<InboundCounters>,
    /// At a node: what it does for others.
    stats: NodeStats,
    /// How many nodes were seen to hold our announcement.
    announced: Arc<watch::Sender<usize>>,
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
            return Err(NetworkError::BootstrapPlace(node.key));
        }
        if config.bootstrap.iter().any(|node| node.key == key.public()) {
            return Err(NetworkError::BootstrapSelf(key.public()));
        }
        let links = Links::new();
        let blocks = broadcast::Sender::new(BLOCKS_KEPT);
        let open_to_strangers = config.role != NetworkRole::Client;
        let streams = streams::Behaviour::new(links.clone(), acceptors, blocks.clone(), open_to_strangers);
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
        let mut swarm = swarm::build(
            keypair,
            &config,
            streams,
            Arc::clone(&inbound),
            stats.clone(),
            Arc::clone(&proxies),
            #[cfg(feature = "mdns")]
            behaviour.transpose()?,
        )?;
        let (places, mut bound) = (places(&config), Vec::new());
        for place in &places {
            let failed = |reason: String| NetworkError::Listen { place: place.clone(), reason };
            for at in listen_addresses(place).await.map_err(|error| failed(error.to_string()))? {
                swarm.listen_on(peer_id::tcp(at)).map_err(|error| failed(failure::innermost(&error)))?;
                swarm.listen_on(peer_id::quic(at)).map_err(|error| failed(failure::innermost(&error)))?;
                bound.push(at);
            }
        }
        if bound.is_empty() && config.listen_ws.is_empty() && config.role != NetworkRole::Client {
            return Err(NetworkError::NoListen);
        }
        for address in websocket_listeners(&config.listen_ws).await? {
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
    async fn lookup(&self, peer: &PublicKey) -> Result<mpsc::Receiver<Announcement>, Failure> {
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

    async fn link_node(&self, node: &PeerAddr) -> Result<(), Failure> {
        if self.links.path(&node.key).is_none() {
            self.dial_node(node).await?;
        }
        if let Some(address) = self.links.address(&node.key) {
            self.command(Command::AddNode { peer: node.key, address }).await.map_err(|_| Failure::Closed)?;
        }
        Ok(())
    }

    async fn command(&self, command: Command) -> Result<(), Closed> {
        self.commands.send(command).await.map_err(|_| Closed)
    }
}

/// True for the error of a stream whose other end does not speak the protocol: protocols are proposed and used in one
/// flight, so that this shows only when the stream is read.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    let negotiation = error.get_ref().and_then(|inner| inner.downcast_ref::<NegotiationError>());
    matches!(negotiation, Some(NegotiationError::Failed))
}

#[derive(Debug, thiserror::Error)]
#[error("the network is shut down")]
struct Closed;

/// Pauses between attempts at something that should come back: 0.25 s, doubling to `most`, each with jitter.
pub(crate) fn redial_backoff(most: Duration) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(most)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Where to listen. A client that knows nodes may have to punch a hole, for which it must dial from where it listens;
/// one that dials its scraper at a given place opens no port.
fn places(config: &NetworkConfig) -> Vec<HostPort> {
    if config.role == NetworkRole::Client && !config.bootstrap.is_empty() {
        return ["0.0.0.0", "::"].map(|host| HostPort { host: host.to_owned(), port: 0 }).into();
    }
    config.listen.clone()
}

/// Where to listen for WebSocket links, none of it in use. libp2p's sockets share a port with each other, also across
/// processes, where half of the links would then be lost.
async fn websocket_listeners(places: &[HostPort]) -> Result<Vec<Multiaddr>, NetworkError> {
    let mut listeners = Vec::new();
    for place in places {
        let failed =
            |error: io::Error| NetworkError::ListenWebSocket { place: place.clone(), reason: error.to_string() };
        for at in listen_addresses(place).await.map_err(failed)? {
            TcpListener::bind(at).map_err(failed)?;
            let at = HostPort { host: at.ip().to_string(), port: at.port() };
            listeners.push(peer_id::websocket(&WebSocketUrl { tls: false, host_port: at, path: "/".to_owned() }));
        }
    }
    Ok(listeners)
}

/// Where to listen for a place: its addresses, with port 0 replaced by one that is free for both TCP and UDP. None if
/// it is every address of a family that this host does not have.
async fn listen_addresses(place: &HostPort) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = match place.ip() {
        Some(ip) => vec![SocketAddr::new(ip, place.port)],
        None => dial::resolve(place).await.map_err(io::Error::other)?,
    };
    // The kernel's own word, before libp2p wraps it: whether this host has such addresses at all.
    for at in &found {
        match UdpSocket::bind((at.ip(), 0)) {
            Err(error) if lacks_ipv6(place, &error) => {
                tracing::info!(%place, "this host has no IPv6");
                return Ok(Vec::new());
            }
            bound => bound?,
        };
    }
    found.into_iter().map(|at| if at.port() == 0 { free_port(at.ip()) } else { Ok(at) }).collect()
}

/// Every address of a family that the host does not have is none: that is no error.
fn lacks_ipv6(place: &HostPort, error: &io::Error) -> bool {
    let unsupported = matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(EAFNOSUPPORT);
    unsupported && place.ip() == Some(Ipv6Addr::UNSPECIFIED.into())
}

fn free_port(ip: IpAddr) -> io::Result<SocketAddr> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_TRIES {
        let tcp = TcpListener::bind((ip, 0))?;
        let at = tcp.local_addr()?;
        match UdpSocket::bind(at) {
            Ok(_) => return Ok(at),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `std` has no name for it.
const EAFNOSUPPORT: i32 = 97;
const COMMAND_QUEUE: usize = 256;
/// More than the nodes that hold one announcement.
const ANSWER_QUEUE: usize = 64;
const BLOCKS_KEPT: usize = 256;
const OBSERVATIONS_KEPT: usize = 256;
const PORT_TRIES: usize = 16;
