//! Reservations at relays: what makes a scraper behind NAT reachable.
//!
//! A scraper holds them at two of its bootstrap nodes, where there are two that relay; if it was given but one, at one
//! more that it meets in the DHT. Each is renewed by libp2p; one that ends, or that falls silent, is made again, there or
//! at another node. Their addresses are announced like others.

use std::time::Duration;

use futures::future;
use tokio::{
    sync::{Semaphore, broadcast::error::RecvError, oneshot, watch},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::{PeerAddr, PublicKey},
    network::{
        error::RelayRefusal,
        failure::NoReservation,
        handle::Network,
        observation::{Observation, PeerKind},
        peer_id::{self, Circuit},
        swarm::driver::Command,
        upkeep::backoff::redial_backoff,
    },
};

/// Keeps reservations until `stop` fires.
pub(crate) async fn keep_reservations(network: Network, stop: CancellationToken) {
    // Whoever gave an address says that it can be reached there.
    if network.external.is_empty() {
        let places = Semaphore::new(RELAYS);
        let nodes = network.bootstrap.iter().map(|node| keep_reservation(&network, node.key, &places));
        let given = future::join_all(nodes);
        if network.bootstrap.len() < RELAYS {
            stop.run_until_cancelled(future::join(given, keep_met(&network, &places))).await;
        } else {
            stop.run_until_cancelled(given).await;
        }
    }
    stop.cancelled().await;
}

/// Reserves at a relay that was met in the DHT, and at another when that one is gone or does not serve. It may be
/// anybody's: what it does is told at `debug` only.
async fn keep_met(network: &Network, places: &Semaphore) {
    loop {
        let Some(node) = meet(network).await else { return };
        tracing::debug!(%node, "met a relay in the DHT");
        network.links.keep_node(node.key);
        tokio::select! {
            () = stay_linked(network, &node) => {}
            () = try_met(network, node.key, places) => {}
            () = gone(network, &node.key) => {}
        }
        network.links.let_go(&node.key);
    }
}

/// The next relay that we dial on our way through the DHT.
async fn meet(network: &Network) -> Option<PeerAddr> {
    let mut observations = network.observations();
    loop {
        let key = match observations.recv().await {
            Ok(Observation::Identified {
                peer,
                seen_at: Some(_),
                kind: PeerKind { node: true, relay: true, .. },
                ..
            }) => peer,
            Ok(_) | Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return None,
        };
        let hint = network.links.address(&key).as_ref().and_then(peer_id::shown_place);
        if hint.is_some() && !network.bootstrap.iter().any(|node| node.key == key) {
            return Some(PeerAddr { key, hint });
        }
    }
}

async fn stay_linked(network: &Network, node: &PeerAddr) {
    loop {
        match network.link_node(node).await {
            Ok(()) => network.links.down(&node.key).await,
            Err(_) => time::sleep(MOST_PAUSE).await,
        }
    }
}

/// Returns once it has refused, or ended, a few reservations.
async fn try_met(network: &Network, node: PublicKey, places: &Semaphore) {
    for _ in 0..MET_TRIES {
        network.links.up(&node).await;
        let Ok(place) = places.acquire().await else { return };
        let why = match reserve(network, node).await {
            Ok(granted) => held(network, granted).await,
            Err(why) => why,
        };
        drop(place);
        tracing::debug!(relay = %node, %why, "no reservation at a relay that was met");
        time::sleep(MOST_PAUSE).await;
    }
}

/// Returns once a node has been away for long.
async fn gone(network: &Network, node: &PublicKey) {
    while time::timeout(GONE, network.links.up(node)).await.is_ok() {
        network.links.down(node).await;
    }
}

/// Nodes beyond the number that is needed wait here, and take over when one of the others fails.
async fn keep_reservation(network: &Network, node: PublicKey, places: &Semaphore) {
    let mut pauses = redial_backoff(MOST_PAUSE);
    loop {
        network.links.up(&node).await;
        let Ok(place) = places.acquire().await else { return };
        let end = match reserve(network, node).await {
            Ok(granted) => {
                tracing::info!(relay = %node, "reachable through a relay");
                pauses = redial_backoff(MOST_PAUSE);
                let end = held(network, granted).await;
                tracing::warn!(relay = %node, why = %end, "no longer reachable through a relay");
                end
            }
            Err(end) => end,
        };
        drop(place);
        let pause = pauses.next().unwrap_or(MOST_PAUSE);
        match end {
            // Not every node is a relay.
            NoReservation::Refused(why) if why != RelayRefusal::NoRelay => {
                tracing::warn!(relay = %node, %why, retry_in = ?pause, "a relay does not make us reachable");
            }
            why => tracing::debug!(relay = %node, %why, retry_in = ?pause, "no reservation"),
        }
        time::sleep(pause).await;
    }
}

/// Counts a reservation until it ends, or nobody waits for that any more.
async fn held(network: &Network, granted: oneshot::Receiver<NoReservation>) -> NoReservation {
    let _counted = Counted::new(network.links.relays());
    granted.await.unwrap_or_else(|_| unsaid())
}

struct Counted<'a>(&'a watch::Sender<usize>);

impl<'a> Counted<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Returns once the relay has granted a reservation; what it gives tells of the end.
pub(crate) async fn reserve(
    network: &Network,
    relay: PublicKey,
) -> Result<oneshot::Receiver<NoReservation>, NoReservation> {
    let unlinked = || NoReservation::lost("not connected");
    let link = network.links.best(&relay).ok_or_else(unlinked)?;
    let at = network.links.address(&relay).filter(peer_id::is_dialable).ok_or_else(unlinked)?;
    // Circuits come at once, and each takes along for its punch what we know of ourselves then.
    let _ = time::timeout(IDENTIFY, network.links.identified(&relay)).await;
    let (accepted, granted) = oneshot::channel();
    let (ended, mut end) = oneshot::channel();
    let circuit = Circuit { relay, at };
    network.command(Command::Reserve { circuit, accepted, ended }).await.map_err(|_| unsaid())?;
    tokio::select! {
        granted = time::timeout(GRANT, granted) => match granted {
            Ok(Ok(())) => Ok(end),
            Ok(Err(_)) => Err(end.await.unwrap_or_else(|_| unsaid())),
            Err(_) => {
                // It is dead, and stands in the way of a living one.
                network.disconnect(relay, link).await;
                Err(NoReservation::lost("no answer"))
            }
        },
        why = &mut end => Err(why.unwrap_or_else(|_| unsaid())),
    }
}

/// The network is shut down: it ends everything without a word.
fn unsaid() -> NoReservation {
    NoReservation::lost("the network is shut down")
}

/// Enough that one may fail; each costs the relay a connection.
const RELAYS: usize = 2;
const IDENTIFY: Duration = Duration::from_secs(1);
/// Reservations that a relay may refuse, or end, before another is looked for.
const MET_TRIES: usize = 3;
const GONE: Duration = Duration::from_secs(120);
const GRANT: Duration = Duration::from_secs(5);
const MOST_PAUSE: Duration = Duration::from_secs(30);
