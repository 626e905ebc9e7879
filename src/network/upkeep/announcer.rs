//! Keeps our announcement in the DHT, so that peers find us by key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::future;
use libp2p::Multiaddr;
use rand::Rng;
use tokio::{
    sync::{broadcast, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::KeyPair,
    network::{
        address::Circuit, command::Holders, handle::Network, host::HostChanges, links::table::LinkEvent, reach::Reach,
        upkeep::backoff::redial_backoff,
    },
    telemetry::Chain,
    wire::{self, Announcement},
};

/// Nodes that were restarted have forgotten us; up to a minute is added, so that a fleet does not announce in step.
const REPEAT: Duration = Duration::from_secs(4 * 60);
const REPEAT_JITTER_S: u64 = 60;
/// Longer than nodes keep an announcement: they bound it themselves.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Half of what fits; the other half is for our own addresses.
const MOST_CIRCUITS: usize = Announcement::MAX_ADDRESSES / 2;
/// Addresses and links come in bursts; one announcement is enough for them all.
const SETTLE: Duration = Duration::from_millis(50);
/// To announce links nodes, too: where such links are lost at once, the pauses grow up to here.
const MOST_SETTLE: Duration = Duration::from_secs(5);
/// After this time without an event the pauses begin at the shortest again.
const CALM: Duration = Duration::from_secs(10);
/// Between attempts that fail.
const MOST_PAUSE: Duration = Duration::from_secs(15);

/// Announces where we are, again and again, until `stop` fires: when a node is linked, when our addresses or the way
/// out of this host change, and every few minutes.
pub(crate) async fn announce(network: Network, key: KeyPair, stop: CancellationToken) {
    stop.run_until_cancelled(announce_forever(network, key)).await;
}

async fn announce_forever(network: Network, key: KeyPair) {
    let mut reasons = Reasons::new(&network);
    let (mut sequence, mut failing) = (0_u64, false);
    let (mut pauses, mut settling) = (redial_backoff(MOST_PAUSE), settle());
    loop {
        let since = Instant::now();
        let again = async {
            if !network.bootstrap().iter().any(|node| network.links().path(&node.key).is_some()) {
                network.announced_to().send_replace(0);
                return time::sleep(REPEAT).await;
            }
            sequence = unix_micros().max(sequence.saturating_add(1));
            let announced = put(&network, &key, sequence).await;
            network.announced_to().send_replace(announced.as_ref().map_or(0, |holders| *holders));
            let pause = match announced {
                Ok(nodes) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(nodes, "announced: clients find us by key again");
                    }
                    pauses = redial_backoff(MOST_PAUSE);
                    REPEAT + Duration::from_secs(rand::rng().random_range(0..REPEAT_JITTER_S))
                }
                Err(error) => {
                    if let AnnounceError::Outrun { later } = error {
                        sequence = later;
                    }
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(error = %Chain(&error), "clients cannot find us by key");
                    }
                    pauses.next().unwrap_or(MOST_PAUSE)
                }
            };
            time::sleep(pause).await;
        };
        // An announcement under way may wait for nodes that are gone.
        tokio::select! {
            () = again => {}
            () = reasons.next(&network) => {}
        }
        if since.elapsed() > CALM {
            settling = settle();
        }
        time::sleep(settling.next().unwrap_or(MOST_SETTLE)).await;
        reasons.forget();
    }
}

/// Why to announce again before it is time.
struct Reasons {
    links: broadcast::Receiver<LinkEvent>,
    reach: watch::Receiver<Reach>,
    host: watch::Receiver<HostChanges>,
    /// The ways out of this host that are announced.
    ways: u64,
}

impl Reasons {
    fn new(network: &Network) -> Self {
        let host = network.host_changes();
        let ways = host.borrow().ways;
        Self { links: network.links().events(), reach: network.reach(), host, ways }
    }

    async fn next(&mut self, network: &Network) {
        tokio::select! {
            _ = self.reach.changed() => {}
            () = node_linked(network, &mut self.links) => {}
            _ = self.host.wait_for(|changes| changes.ways != self.ways) => {}
        }
    }

    /// Drops those that have come meanwhile: one announcement is enough for them all.
    fn forget(&mut self) {
        self.links = self.links.resubscribe();
        self.reach.mark_unchanged();
        self.ways = self.host.borrow_and_update().ways;
    }
}

/// Pauses before one announcement after the other, ever longer.
fn settle() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new().with_min_delay(SETTLE).with_max_delay(MOST_SETTLE).without_max_times().build()
}

#[derive(Debug, thiserror::Error)]
enum AnnounceError {
    #[error("our addresses cannot be announced")]
    Unfit(#[from] wire::AnnounceError),
    #[error("no node holds our announcement; are the bootstrap peers narthex nodes, and is our clock right?")]
    NoHolder,
    #[error("a node holds a later announcement with our key; was our clock set back, or does another process have it?")]
    Outrun { later: u64 },
}

/// Returns when a bootstrap node gets linked: the node may have forgotten us.
async fn node_linked(network: &Network, links: &mut broadcast::Receiver<LinkEvent>) {
    loop {
        match links.recv().await {
            Ok(LinkEvent::Up(peer)) if network.bootstrap().iter().any(|node| node.key == peer) => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => future::pending().await,
        }
    }
}

/// Hands out one announcement, and returns the number of nodes that hold it then. Nodes accept whatever they get, so
/// they are asked for it again.
async fn put(network: &Network, key: &KeyPair, sequence: u64) -> Result<usize, AnnounceError> {
    let addresses = announced(network).await;
    let bytes: Vec<Vec<u8>> = addresses.iter().map(Multiaddr::to_vec).collect();
    // The sequence may be ahead of a clock that was set back: earlier nodes and clients compare the expiry with their clocks.
    let expires_at = sequence / 1_000_000 + LIFETIME.as_secs();
    let signed = Announcement::sign(key, &bytes, sequence, expires_at)?;
    let held_after = async |to| {
        network.put(key.public(), signed.clone(), to).await;
        holders(network, key, sequence).await
    };
    // A peer that asks the same nodes as we do finds us before the search for the closest has ended.
    let (linked, closest) = future::join(held_after(Holders::Linked), held_after(Holders::Closest)).await;
    let holders = linked?.max(closest?);
    if holders == 0 {
        return Err(AnnounceError::NoHolder);
    }
    tracing::debug!(?addresses, holders, "announced our addresses");
    Ok(holders)
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
            network.announced_to().send_if_modified(|known| std::mem::replace(known, (*known).max(holders)) < holders);
        }
    }
    Ok(holders)
}

/// The addresses that others are [told](crate::network::reach::Reach::told), and behind them the relays that we can be reached through.
pub(crate) async fn announced(network: &Network) -> Vec<Multiaddr> {
    network.listeners_up().await;
    let reach = network.reach().borrow().clone();
    let circuits = reach.circuits.iter().filter_map(Circuit::parse).map(|circuit| circuit.address());
    let circuits: Vec<_> = circuits.take(MOST_CIRCUITS).collect();
    let mut addresses = reach.told();
    addresses.truncate(Announcement::MAX_ADDRESSES - circuits.len());
    addresses.extend(circuits);
    addresses
}

fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
