//! The doctor's own peer on the network: a client with a fresh key.
//!
//! A scraper would take a doctor with the agent's key for the agent, and pull from it.

use std::{path::PathBuf, time::Duration};

use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::{KeyPair, PeerAddr, PublicKey},
    network::{LinkTransport, Network, NetworkConfig, NetworkRole, Observation, PeerKind},
};

/// Longest wait for the tasks at the end.
const GRACE: Duration = Duration::from_secs(2);
/// Most observations kept: a hostile peer can cause any number.
const MOST_OBSERVATIONS: usize = 1024;

/// The running peer, with all that it observes.
pub(super) struct Presence {
    pub(super) key: KeyPair,
    pub(super) network: Network,
    pub(super) nodes: Vec<PeerAddr>,
    observations: watch::Receiver<Vec<Observation>>,
    /// Longest wait for an answer.
    pub(super) wait: Duration,
    started: Instant,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Presence {
    /// Starts. With nodes the peer listens on ports of its own, as a client does for hole punching. The peer knows the addresses
    /// in the file of an agent.
    pub(super) async fn start(
        nodes: &[PeerAddr],
        mdns: bool,
        addresses_file: Option<PathBuf>,
        wait: Duration,
    ) -> anyhow::Result<Self> {
        let key = KeyPair::generate();
        let config = NetworkConfig {
            bootstrap: nodes.to_vec(),
            mdns,
            addresses_file,
            addresses_read_only: true,
            asks_dial_back: true,
            ..NetworkConfig::new(NetworkRole::Client)
        };
        let (network, task) = Network::start(&key, config, Vec::new()).await?;
        for node in nodes {
            network.links().keep_node(node.key);
        }
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (sender, observations) = watch::channel(Vec::new());
        tasks.spawn(collect(network.observations(), sender));
        tasks.spawn(task.run(stop.clone()));
        Ok(Self { key, network, nodes: nodes.to_vec(), observations, wait, started: Instant::now(), stop, tasks })
    }

    pub(super) fn observations(&self) -> Vec<Observation> {
        self.observations.borrow().clone()
    }

    /// Waits for the observations in which `find` finds something, for `most` at most.
    pub(super) async fn until<T>(&self, most: Duration, find: impl Fn(&[Observation]) -> Option<T>) -> Option<T> {
        let mut observations = self.observations.clone();
        let found = async { Some(find(&observations.wait_for(|all| find(all).is_some()).await.ok()?)) };
        time::timeout(most, found).await.ok().flatten().flatten()
    }

    /// The rest of a span of time that began at the start.
    pub(super) fn left_of(&self, span: Duration) -> Duration {
        span.saturating_sub(self.started.elapsed())
    }

    pub(super) async fn kind(&self, peer: &PublicKey) -> Option<PeerKind> {
        self.until(self.wait, |observations| kind_of(observations, peer)).await
    }

    /// Waits until each linked node has stated over each of its connections at which address it sees us.
    pub(super) async fn all_identified(&self) {
        let links = self.network.links();
        let connections = self.nodes.iter().map(|node| &node.key);
        let connections: Vec<_> =
            connections.flat_map(|key| links.transports(key).into_iter().map(move |by| (key, by))).collect();
        let all = |observations: &[Observation]| {
            let identified = |(key, by): &(&PublicKey, LinkTransport)| {
                observations.iter().any(|one| {
                    matches!(one, Observation::Identified { peer, transport, .. } if peer == *key && transport == by)
                })
            };
            connections.iter().all(identified).then_some(())
        };
        self.until(self.wait, all).await;
    }

    /// True if a node is linked and reports that it is a node, so that the DHT can be asked.
    pub(super) fn reaches_a_node(&self) -> bool {
        let (links, observations) = (self.network.links(), self.observations.borrow());
        let is_node = |key| kind_of(&observations, key).is_some_and(|kind| kind.node);
        self.nodes.iter().any(|node| links.path(&node.key).is_some() && is_node(&node.key))
    }

    /// Closes the links, so that no other peer keeps a dead one.
    pub(super) async fn end(mut self) {
        self.stop.cancel();
        drop(self.network);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = time::timeout(GRACE, ended).await;
    }
}

fn kind_of(observations: &[Observation], peer: &PublicKey) -> Option<PeerKind> {
    observations.iter().find_map(|one| match one {
        Observation::Identified { peer: who, kind, .. } if who == peer => Some(*kind),
        _ => None,
    })
}

/// Keeps the observations of the network until the network ends.
async fn collect(mut observations: broadcast::Receiver<Observation>, all: watch::Sender<Vec<Observation>>) {
    loop {
        match observations.recv().await {
            Ok(observation) => all.send_modify(|all| {
                if all.len() < MOST_OBSERVATIONS {
                    all.push(observation);
                }
            }),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
