//! What keeps a peer findable: links to the bootstrap nodes, and its announcement in the DHT.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::future;
use libp2p::Multiaddr;
use rand::Rng;
use tokio::{
    sync::{broadcast, oneshot},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::{KeyPair, PeerAddr},
    network::{
        handle::Network,
        links::{dial::explain, table::LinkEvent},
        peer_id::{self, Circuit},
        swarm::driver::{Command, Holders},
        upkeep::backoff::redial_backoff,
    },
    telemetry::Chain,
    wire::{self, Announcement},
};

/// Keeps a link to every bootstrap node, with backoff, until `stop` fires.
pub(crate) async fn keep_nodes(network: Network, stop: CancellationToken) {
    let nodes = network.bootstrap.iter().map(|node| keep_node(&network, node));
    stop.run_until_cancelled(future::join_all(nodes)).await;
    stop.cancelled().await; // also where there are none
}

async fn keep_node(network: &Network, node: &PeerAddr) {
    network.links.keep_node(node.key);
    let mut pauses = redial_backoff(MOST_REDIAL);
    loop {
        let failure = network.link_node(node).await.err();
        if failure.is_none() {
            tracing::debug!(%node, "bootstrap node linked");
            let since = Instant::now();
            network.links.down(&node.key).await;
            if since.elapsed() > AT_ONCE {
                pauses = redial_backoff(MOST_REDIAL);
                continue;
            }
            // A node that has no room for a connection takes it, and ends it.
        }
        let pause = pauses.next().unwrap_or(MOST_REDIAL);
        match failure.map(|failure| explain(&node.key, failure)) {
            Some(error) => tracing::warn!(%node, %error, retry_in = ?pause, "bootstrap node does not answer"),
            None => tracing::debug!(%node, retry_in = ?pause, "the link to a bootstrap node was lost at once"),
        }
        time::sleep(pause).await;
    }
}

/// Announces where we are, again and again, until `stop` fires: when a node is linked, when our addresses change, and
/// every few minutes.
pub(crate) async fn announce(network: Network, key: KeyPair, stop: CancellationToken) {
    stop.run_until_cancelled(announce_forever(network, key)).await;
}

async fn announce_forever(network: Network, key: KeyPair) {
    let mut links = network.links.events();
    let mut reach = network.reach.clone();
    let (mut sequence, mut failing) = (0_u64, false);
    let (mut pauses, mut settling) = (redial_backoff(MOST_REDIAL), settle());
    loop {
        let pause = if network.bootstrap.iter().any(|node| network.links.path(&node.key).is_some()) {
            sequence = unix_micros().max(sequence.saturating_add(1));
            let announced = put(&network, &key, sequence).await;
            network.announced.send_replace(announced.as_ref().map_or(0, |holders| *holders));
            match announced {
                Ok(nodes) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(nodes, "announced: clients find us by key again");
                    }
                    pauses = redial_backoff(MOST_REDIAL);
                    REPEAT + Duration::from_secs(rand::rng().random_range(0..60))
                }
                Err(error) => {
                    if let AnnounceError::Outrun { later } = error {
                        sequence = later;
                    }
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(error = %Chain(&error), "clients cannot find us by key");
                    }
                    pauses.next().unwrap_or(MOST_REDIAL)
                }
            }
        } else {
            network.announced.send_replace(0);
            REPEAT
        };
        let since = Instant::now();
        tokio::select! {
            () = time::sleep(pause) => {}
            _ = reach.changed() => {}
            () = node_linked(&network, &mut links) => {}
        }
        if since.elapsed() > CALM {
            settling = settle();
        }
        // Addresses and links come in bursts; one announcement tells of them all. To announce links nodes, too: where
        // they are lost at once, that shall not go round in circles.
        time::sleep(settling.next().unwrap_or(MOST_SETTLE)).await;
        links = links.resubscribe();
        reach.mark_unchanged();
    }
}

/// Pauses before one announcement after the other, ever longer.
fn settle() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new().with_min_delay(SETTLE).with_max_delay(MOST_SETTLE).without_max_times().build()
}

/// Why nobody finds us.
#[derive(Debug, thiserror::Error)]
enum AnnounceError {
    #[error("our addresses cannot be announced")]
    Unfit(#[from] wire::AnnounceError),
    #[error("no node holds our announcement; are the bootstrap peers narthex nodes, and is our clock right?")]
    NoHolder,
    #[error("a node holds a later announcement with our key; was our clock set back, or does another process have it?")]
    Outrun { later: u64 },
}

/// Returns when a bootstrap node gets linked: it may have forgotten us.
async fn node_linked(network: &Network, links: &mut broadcast::Receiver<LinkEvent>) {
    loop {
        match links.recv().await {
            Ok(LinkEvent::Up(peer)) if network.bootstrap.iter().any(|node| node.key == peer) => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => future::pending().await,
        }
    }
}

/// Hands out one announcement, and gives the number of nodes that hold it then: they say yes to whatever they get, so they
/// are asked for it again.
async fn put(network: &Network, key: &KeyPair, sequence: u64) -> Result<usize, AnnounceError> {
    let addresses = announced(network).await;
    let bytes: Vec<Vec<u8>> = addresses.iter().map(Multiaddr::to_vec).collect();
    let expires_at = unix_micros() / 1_000_000 + LIFETIME.as_secs();
    let signed = Announcement::sign(key, &bytes, sequence, expires_at)?;
    let held_after = async |to| {
        hand_out(network, key, signed.clone(), to).await;
        holders(network, key, sequence).await
    };
    // Whoever asks the same nodes as we do finds us before the search for the closest has ended.
    let (linked, closest) = future::join(held_after(Holders::Linked), held_after(Holders::Closest)).await;
    let holders = linked?.max(closest?);
    if holders == 0 {
        return Err(AnnounceError::NoHolder);
    }
    tracing::debug!(?addresses, holders, "announced our addresses");
    Ok(holders)
}

/// Returns when the nodes have answered. What came of it is seen afterwards.
async fn hand_out(network: &Network, key: &KeyPair, signed: Vec<u8>, to: Holders) {
    let (done, answered) = oneshot::channel();
    if network.command(Command::Put { peer: key.public(), signed, to, done }).await.is_ok() {
        let _ = answered.await;
    }
}

/// The nodes that answer a look-up for our own key with this announcement.
async fn holders(network: &Network, key: &KeyPair, sequence: u64) -> Result<usize, AnnounceError> {
    let Ok(mut answers) = network.lookup(&key.public()).await else { return Ok(0) };
    let mut holders = 0;
    while let Some(answer) = answers.recv().await {
        if answer.sequence > sequence {
            return Err(AnnounceError::Outrun { later: answer.sequence });
        }
        if answer.sequence == sequence {
            holders += 1;
            network.announced.send_if_modified(|known| std::mem::replace(known, (*known).max(holders)) < holders);
        }
    }
    Ok(holders)
}

/// The addresses given by the operator, or else those we listen on or were seen at; loopback ones only if there are no
/// others. Behind them the relays that we can be reached through.
pub(crate) async fn announced(network: &Network) -> Vec<Multiaddr> {
    network.listeners_up().await;
    let reach = network.reach.borrow().clone();
    let circuits = reach.circuits.iter().filter_map(Circuit::parse).map(|circuit| circuit.address());
    let circuits: Vec<_> = circuits.take(MOST_CIRCUITS).collect();
    let mut addresses = reach.given.clone();
    if addresses.is_empty() {
        addresses.extend(reach.direct().filter(|address| peer_id::is_dialable(address)).cloned());
    }
    let is_loopback = |address: &Multiaddr| peer_id::ip(address).is_some_and(|ip| ip.is_loopback());
    if addresses.iter().any(|address| !is_loopback(address)) {
        addresses.retain(|address| !is_loopback(address));
    }
    addresses.truncate(Announcement::MAX_ADDRESSES - circuits.len());
    addresses.extend(circuits);
    addresses
}

fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

const REPEAT: Duration = Duration::from_secs(4 * 60);
const MOST_CIRCUITS: usize = Announcement::MAX_ADDRESSES / 2;
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// A link that is lost so soon was refused.
const AT_ONCE: Duration = Duration::from_secs(2);
const SETTLE: Duration = Duration::from_millis(50);
const MOST_SETTLE: Duration = Duration::from_secs(5);
const CALM: Duration = Duration::from_secs(10);
const MOST_REDIAL: Duration = Duration::from_secs(15);
