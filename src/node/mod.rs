//! The node: a public helper through which peers find each other by key. It knows no secret and sees no metrics.

use std::{net::SocketAddr, time::Duration};

use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::{HostPort, KeyPair, PeerAddr, PublicKey},
    network::{self, Network, NetworkConfig, NetworkError, NetworkLimits, NetworkRole},
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
    /// Addresses to announce instead of the ones it listens on, as behind a forwarded port.
    pub external: Vec<HostPort>,
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
        let (network, task) = Network::start(
            &config.key,
            NetworkConfig {
                role: NetworkRole::Node,
                listen: config.listen,
                external: config.external,
                bootstrap: config.bootstrap,
                addresses_file: None,
                limits: config.limits,
            },
            Vec::new(),
        )
        .await?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(stop.clone()));
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
const GRACE: Duration = Duration::from_secs(3);
