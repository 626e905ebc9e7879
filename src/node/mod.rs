//! The node: a public helper through which peers find each other by key. It knows no secret and sees no metrics.

use std::{net::SocketAddr, time::Duration};

use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::{HostPort, KeyPair, PeerAddr, PublicKey},
    network::{self, Network, NetworkConfig, NetworkError, NetworkLimits, NetworkRole, RelayLimits},
};

/// What a node is told at its start.
#[derive(Debug)]
pub struct NodeConfig {
    /// Its key.
    pub key: KeyPair,
    /// Where peers dial in; each means that TCP port and the same UDP port. Default port 19961 on every address.
    pub listen: Vec<HostPort>,
    /// Other nodes of the same network. Each needs its place.
    pub bootstrap: Vec<PeerAddr>,
    /// The addresses that others reach it at, where it cannot know them itself, as behind a forwarded port.
    pub external: Vec<HostPort>,
    /// Whether it carries links between peers that cannot reach each other, and how many. Default none.
    pub relay: Option<RelayLimits>,
    /// What peers may cost.
    pub limits: NetworkLimits,
}

impl NodeConfig {
    /// The defaults for a key.
    pub fn new(key: KeyPair) -> Self {
        let at = |host: &str| HostPort { host: host.to_owned(), port: DEFAULT_PORT };
        Self {
            key,
            listen: vec![at("0.0.0.0"), at("::")],
            bootstrap: Vec::new(),
            external: Vec::new(),
            relay: None,
            limits: NetworkLimits::default(),
        }
    }
}

/// A running node. Lives in background tasks until [`Node::shutdown`].
pub struct Node {
    public_key: PublicKey,
    listening: Vec<SocketAddr>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Node {
    /// Starts to listen, and to keep links to the other nodes.
    ///
    /// # Errors
    /// [`NetworkError`] for settings that cannot work here.
    pub async fn start(config: NodeConfig) -> Result<Self, NetworkError> {
        let relays = config.relay.is_some();
        let (network, task) = Network::start(
            &config.key,
            NetworkConfig {
                listen: config.listen,
                external: config.external,
                bootstrap: config.bootstrap,
                relay: config.relay,
                limits: config.limits,
                ..NetworkConfig::new(NetworkRole::Node)
            },
            Vec::new(),
        )
        .await?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(stop.clone()));
        if relays && time::timeout(PLACE, network.public_address()).await.is_err() {
            return Err(NetworkError::RelayPlace);
        }
        tasks.spawn(network::keep_nodes(network.clone(), stop.clone()));
        let listening = network.listening().await;
        Ok(Self { public_key: config.key.public(), listening, stop, tasks })
    }

    /// Its key: others name it `<key>@<host>:<port>`.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Where peers dial in.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
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

const DEFAULT_PORT: u16 = 19_961;
/// The kernel lists the addresses of a host at once.
const PLACE: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(3);
