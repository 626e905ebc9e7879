//! The node: a public helper through which peers find each other by key. It knows no secret and sees no metrics.

mod http;
mod metrics;

use std::{net::SocketAddr, time::Duration};

use tokio::{sync::mpsc, task::JoinSet, time};
use tokio_util::sync::CancellationToken;

pub use crate::network::{DEFAULT_P2P_PORT, DialBackLimits, RelayLimits};

use crate::{
    http::{BindError, HttpLimits, bind},
    identity::{DialAddress, HostPort, KeyPair, PeerAddr, PublicKey},
    network::{self, Acceptor, Firewall, Network, NetworkConfig, NetworkError, NetworkLimits, NetworkRole, followers},
    wire::FOLLOW_PROTOCOL,
};

/// The kernel lists the addresses of a host at once.
const PUBLIC_ADDRESS_WAIT: Duration = Duration::from_secs(1);
/// Longest wait at shutdown for the tasks, which only close connections.
const GRACE: Duration = Duration::from_secs(3);

/// Settings of a node.
///
/// ```
/// use narthex::{KeyPair, NodeConfig, node::RelayLimits};
///
/// let mut relay = RelayLimits::default();
/// relay.circuits_per_peer = 4;
/// let mut config = NodeConfig::new(KeyPair::generate());
/// config.relay = Some(relay);
/// config.external = vec!["node.example.org:19961".parse()?];
/// # Ok::<_, narthex::identity::DialAddressError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct NodeConfig {
    /// The key of the node.
    pub key: KeyPair,
    /// Addresses that peers dial; each means that TCP port and the same UDP port. Default port 19961 on every address.
    pub listen: Vec<HostPort>,
    /// Addresses that peers dial by WebSocket, without TLS, which a reverse proxy adds. Default none.
    pub listen_ws: Vec<HostPort>,
    /// Other nodes of the same network: peers are sent to these and to no others. Each needs its address.
    pub bootstrap: Vec<PeerAddr>,
    /// Addresses by which others reach the node where the node cannot know them, as behind a forwarded port.
    pub external: Vec<DialAddress>,
    /// Whether the node carries links between peers that cannot reach each other, and how many. Default none.
    pub relay: Option<RelayLimits>,
    /// The only peers that others may reach through this relay. Default all, with none listed.
    pub relay_for: Vec<PublicKey>,
    /// How peers are dialled back that ask whether they can be reached.
    pub dial_back: DialBackLimits,
    /// Address of metrics, health and readiness. Default none.
    pub http: Option<HostPort>,
    /// How many HTTP connections may be open.
    pub http_limits: HttpLimits,
    /// What peers may cost.
    pub limits: NetworkLimits,
}

impl NodeConfig {
    /// The defaults for a key.
    pub fn new(key: KeyPair) -> Self {
        Self {
            key,
            listen: network::default_listen(),
            listen_ws: Vec::new(),
            bootstrap: Vec::new(),
            external: Vec::new(),
            relay: None,
            relay_for: Vec::new(),
            dial_back: DialBackLimits::default(),
            http: None,
            http_limits: HttpLimits::default(),
            limits: NetworkLimits::default(),
        }
    }
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The HTTP address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The network could not start.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// A running node. Lives in background tasks until [`Node::shutdown`].
///
/// ```no_run
/// # async fn helper() -> Result<(), Box<dyn std::error::Error>> {
/// use narthex::{KeyPair, Node, NodeConfig};
///
/// let mut node = Node::start(NodeConfig::new(KeyPair::generate())).await?;
/// println!("bootstrap node: {}@node.example.org:19961", node.public_key());
/// node.failed().await;
/// # Ok(())
/// # }
/// ```
pub struct Node {
    public_key: PublicKey,
    listening: Vec<SocketAddr>,
    http_addr: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Node {
    /// Starts to listen, and to keep links to the other nodes.
    ///
    /// # Errors
    /// [`NodeError`] for settings that cannot work here.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let http = match &config.http {
            Some(addr) => Some(bind(addr).await?),
            None => None,
        };
        let relays = config.relay.is_some();
        let (inbox, followers) = mpsc::channel(followers::QUEUE);
        let acceptor = Acceptor { protocol: FOLLOW_PROTOCOL, firewall: Firewall::Anyone, inbox };
        let (network, task) = Network::start(
            &config.key,
            NetworkConfig {
                listen: config.listen,
                listen_ws: config.listen_ws,
                external: config.external,
                bootstrap: config.bootstrap,
                relay: config.relay,
                relay_for: config.relay_for,
                dial_back: config.dial_back,
                limits: config.limits,
                ..NetworkConfig::new(NetworkRole::Node)
            },
            vec![acceptor],
        )
        .await?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(stop.clone()));
        if relays && time::timeout(PUBLIC_ADDRESS_WAIT, network.public_address()).await.is_err() {
            return Err(NetworkError::RelayAddress.into());
        }
        tasks.spawn(network::keep_nodes(network.clone(), stop.clone()));
        tasks.spawn(followers::tell_followers(network.clone(), followers, stop.clone()));
        tasks.spawn(network::keep_external(network.clone(), stop.clone()));
        network.listeners_up().await;
        let listening = network.listening().to_vec();
        let http_addr = http.as_ref().map(|(_, at)| *at);
        if let Some((listener, _)) = http {
            tasks.spawn(http::serve(listener, config.http_limits, network, stop.clone()));
        }
        Ok(Self { public_key: config.key.public(), listening, http_addr, stop, tasks })
    }

    /// The key of the node, which others name `<key>@<host>:<port>`.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Addresses that peers dial.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Address of the metrics.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// Returns when a part of the node has failed; as long as all is well, never.
    pub async fn failed(&mut self) {
        self.tasks.join_next().await;
    }

    /// Closes the links.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = time::timeout(GRACE, ended).await;
    }
}
