//! The doctor's own presence on the network: a client with a key that is thrown away.
//!
//! Under the agent's own key it would be taken for the agent, and the scraper would pull from it.

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

/// A peer that looks about.
pub(super) struct Presence {
    pub(super) key: KeyPair,
    pub(super) network: Network,
    pub(super) nodes: Vec<PeerAddr>,
    seen: watch::Receiver<Vec<Observation>>,
    /// Longest wait for an answer.
    pub(super) wait: Duration,
    started: Instant,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Presence {
    /// Starts; with nodes it listens on ports of its own, as a client does that may have to punch a hole. It knows the
    /// addresses that an agent has remembered in its file.
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
        let (told, seen) = watch::channel(Vec::new());
        tasks.spawn(collect(network.observations(), told));
        tasks.spawn(task.run(stop.clone()));
        Ok(Self { key, network, nodes: nodes.to_vec(), seen, wait, started: Instant::now(), stop, tasks })
    }

    /// What others have told so far.
    pub(super) fn seen(&self) -> Vec<Observation> {
        self.seen.borrow().clone()
    }

    /// Waits until something that others told makes sense of the question.
    pub(super) async fn until<T>(&self, most: Duration, find: impl Fn(&[Observation]) -> Option<T>) -> Option<T> {
        let mut seen = self.seen.clone();
        let found = async { Some(find(&seen.wait_for(|seen| find(seen).is_some()).await.ok()?)) };
        time::timeout(most, found).await.ok().flatten().flatten()
    }

    /// What is left of a span of time that began with our start.
    pub(super) fn left_of(&self, span: Duration) -> Duration {
        span.saturating_sub(self.started.elapsed())
    }

    /// What a linked peer says that it is.
    pub(super) async fn kind(&self, peer: &PublicKey) -> Option<PeerKind> {
        self.until(self.wait, |seen| kind_of(seen, peer)).await
    }

    /// Waits until each linked node has said over each of its connections where it sees us.
    pub(super) async fn all_identified(&self) {
        let links = self.network.links();
        let connections = self.nodes.iter().map(|node| &node.key);
        let connections: Vec<_> =
            connections.flat_map(|key| links.transports(key).into_iter().map(move |by| (key, by))).collect();
        let all = |seen: &[Observation]| {
            let told = |(key, by): &(&PublicKey, LinkTransport)| {
                seen.iter().any(|one| {
                    matches!(one, Observation::Identified { peer, transport, .. } if peer == *key && transport == by)
                })
            };
            connections.iter().all(told).then_some(())
        };
        self.until(self.wait, all).await;
    }

    /// True if there is a link to a node that is one, so that the DHT can be asked.
    pub(super) fn reaches_a_node(&self) -> bool {
        let (links, seen) = (self.network.links(), self.seen.borrow());
        let is_node = |key| kind_of(&seen, key).is_some_and(|kind| kind.node);
        self.nodes.iter().any(|node| links.path(&node.key).is_some() && is_node(&node.key))
    }

    /// Closes the links, so that nobody waits for a peer that is gone.
    pub(super) async fn end(mut self) {
        self.stop.cancel();
        drop(self.network);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = time::timeout(GRACE, ended).await;
    }
}

fn kind_of(seen: &[Observation], peer: &PublicKey) -> Option<PeerKind> {
    seen.iter().find_map(|one| match one {
        Observation::Identified { peer: who, kind, .. } if who == peer => Some(*kind),
        _ => None,
    })
}

/// Keeps what there is to see, until the network ends.
async fn collect(mut observations: broadcast::Receiver<Observation>, told: watch::Sender<Vec<Observation>>) {
    loop {
        match observations.recv().await {
            Ok(observation) => told.send_modify(|seen| {
                if seen.len() < MOST_SEEN {
                    seen.push(observation);
                }
            }),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

const GRACE: Duration = Duration::from_secs(2);
const MOST_SEEN: usize = 1024;
