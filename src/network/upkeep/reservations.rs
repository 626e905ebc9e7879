//! Reservations at relays: they make a scraper behind NAT reachable.
//!
//! A scraper holds reservations at two of its bootstrap nodes, where two of them relay; with a single bootstrap node, and
//! if asked to, at one more relay that it meets in the DHT; at each on every connection, see [`relay`](super::relay). libp2p
//! renews them. One that ends, or whose relay no longer answers, is made again, there or at another node. The addresses
//! through relays are announced like others.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::future;
use tokio::{
    sync::{Semaphore, broadcast::error::RecvError},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::{PeerAddr, PublicKey},
    network::{
        address,
        error::RelayRefusal,
        failure::NoReservation,
        handle::Network,
        observation::{Observation, PeerKind},
        upkeep::{backoff::Redial, relay},
    },
    telemetry::short_duration,
};

/// Enough that one may fail; each costs the relay a connection.
const RELAYS: usize = 2;
/// Reservations that a relay may refuse, or end, before another is looked for.
const MET_TRIES: usize = 3;
/// A relay that is unreachable for this time is replaced by another.
const GONE: Duration = Duration::from_secs(120);
/// Between attempts at a relay.
const MOST_PAUSE: Duration = Duration::from_secs(15);

/// Keeps reservations until `stop` fires. With `met`, a relay that is met in the DHT is used where one bootstrap node is
/// all there is: whose relay that is nobody knows, and it sees who is linked to whom.
pub(crate) async fn keep_reservations(network: Network, met: bool, stop: CancellationToken) {
    // An operator who gives an external address asserts that the scraper can be reached there.
    if network.external().is_empty() {
        let permits = Semaphore::new(RELAYS);
        let nodes = network.bootstrap().iter().map(|node| keep_reservation(&network, node, &permits));
        let given = future::join_all(nodes);
        if met && network.bootstrap().len() < RELAYS {
            stop.run_until_cancelled(future::join(given, keep_met(&network, &permits))).await;
        } else {
            stop.run_until_cancelled(given).await;
        }
    }
    stop.cancelled().await;
}

/// Reserves at a relay that was met in the DHT, and at another when that one is gone or does not serve. The relay may be
/// anybody's, so its failures are logged at `debug` only.
async fn keep_met(network: &Network, permits: &Semaphore) {
    loop {
        let Some(node) = meet(network).await else { return };
        tracing::debug!(%node, "met a relay in the DHT");
        network.links().keep_node(node.key);
        tokio::select! {
            () = stay_linked(network, &node) => {}
            () = try_met(network, &node, permits) => {}
            () = gone(network, &node.key) => {}
        }
        network.links().let_go(&node.key);
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
        let hint = network.links().address(&key).as_ref().and_then(address::dial_address);
        if hint.is_some() && !network.bootstrap().iter().any(|node| node.key == key) {
            return Some(PeerAddr { key, hint });
        }
    }
}

async fn stay_linked(network: &Network, node: &PeerAddr) {
    let mut redial = Redial::new(MOST_PAUSE, network.host_changes());
    loop {
        match redial.attempt(|| network.link_node(node)).await {
            Ok(()) => {
                network.links().down(&node.key).await;
                redial.was_good();
            }
            Err(_) => {
                let pause = redial.next_pause();
                redial.pause(pause).await;
            }
        }
    }
}

/// Returns once the relay has refused, or ended, a few reservations.
async fn try_met(network: &Network, node: &PeerAddr, permits: &Semaphore) {
    for _ in 0..MET_TRIES {
        network.links().up(&node.key).await;
        let Ok(permit) = permits.acquire().await else { return };
        let why = relay::hold(network, node, || {}).await;
        drop(permit);
        tracing::debug!(relay = %node.key, %why, "no reservation at a relay that was met");
        time::sleep(MOST_PAUSE).await;
    }
}

/// Returns once a node has been away for long.
async fn gone(network: &Network, node: &PublicKey) {
    while time::timeout(GONE, network.links().up(node)).await.is_ok() {
        network.links().down(node).await;
    }
}

/// Nodes beyond the number that is needed wait here, and take over when one of the others fails.
async fn keep_reservation(network: &Network, node: &PeerAddr, permits: &Semaphore) {
    let mut redial = Redial::new(MOST_PAUSE, network.host_changes());
    let relay = node.key;
    loop {
        network.links().up(&relay).await;
        let Ok(permit) = permits.acquire().await else { return };
        let held = AtomicBool::new(false);
        let granted = || {
            held.store(true, Ordering::Relaxed);
            tracing::info!(%relay, "reachable through a relay");
        };
        let end = relay::hold(network, node, granted).await;
        drop(permit);
        if held.into_inner() {
            tracing::warn!(%relay, why = %end, "no longer reachable through a relay");
            redial.was_good();
        }
        let pause = redial.next_pause();
        match end {
            // Not every node is a relay.
            NoReservation::Refused(why) if why != RelayRefusal::NoRelay => {
                tracing::warn!(%relay, %why, retry_in = short_duration(pause), "a relay does not make us reachable");
            }
            why => tracing::debug!(%relay, %why, retry_in = short_duration(pause), "no reservation"),
        }
        redial.pause(pause).await;
    }
}
