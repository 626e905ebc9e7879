//! What a relay bears: circuits between peers that cannot reach each other directly.
//!
//! libp2p's defaults (128 KiB or 2 minutes a circuit, 16 circuits) are made for hole punching alone; ours must carry
//! scrapes for as long as two peers can do no better.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    relay::{self, RateLimiter},
};

use crate::network::swarm::limits;

/// Bounds on what a node relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// Peers that may be reached through this node at once. Default 4096.
    pub reservations: usize,
    /// Circuits at once, of all peers. Default 4096.
    pub circuits: usize,
    /// Circuits at once that one peer may open. Default 16.
    pub circuits_per_peer: usize,
    /// Longest life of a circuit; its ends then build another. Default 24 h.
    pub circuit_duration: Duration,
    /// Most bytes of a circuit, both directions together; its ends then build another. Default 16 GiB.
    pub circuit_bytes: u64,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            reservations: 4096,
            circuits: 4096,
            circuits_per_peer: 16,
            circuit_duration: Duration::from_secs(24 * 60 * 60),
            circuit_bytes: 16 * 1024 * 1024 * 1024,
        }
    }
}

/// Peers that hold reservations, with the number of connections that they hold them on.
pub(crate) type Holders = Arc<Mutex<HashMap<PeerId, usize>>>;

pub(crate) fn behaviour(local: PeerId, limits: RelayLimits, holders: Holders) -> relay::Behaviour {
    let config = relay::Config {
        // Counted by the first of the limiters: this would refuse renewals, too, at a relay that is full.
        max_reservations: usize::MAX,
        // These two let one more pass than they say.
        max_reservations_per_peer: RESERVATIONS_PER_PEER - 1,
        reservation_duration: RESERVATION,
        max_circuits: limits.circuits,
        max_circuits_per_peer: limits.circuits_per_peer.saturating_sub(1),
        max_circuit_duration: limits.circuit_duration,
        max_circuit_bytes: limits.circuit_bytes,
        reservation_rate_limiters: vec![room_for_holders(limits.reservations, holders)],
        circuit_src_rate_limiters: Vec::new(),
    };
    // A peer retries with backoff and stays far below its rate; a whole office may come from one address.
    let mut config = config
        .reservation_rate_per_peer(BURST_PER_PEER, Duration::from_secs(5))
        .reservation_rate_per_ip(BURST_PER_IP, Duration::from_millis(200))
        .circuit_src_per_peer(BURST_PER_PEER, Duration::from_secs(5))
        .circuit_src_per_ip(BURST_PER_IP, Duration::from_millis(50));
    config.reservation_rate_limiters = config.reservation_rate_limiters.into_iter().map(per_network).collect();
    config.circuit_src_rate_limiters = config.circuit_src_rate_limiters.into_iter().map(per_network).collect();
    let mut relay = relay::Behaviour::new(local, config);
    relay.set_status(Some(relay::Status::Enable));
    relay
}

/// Lets those renew who have a reservation, and others in as long as there is room.
fn room_for_holders(most: usize, holders: Holders) -> Box<dyn RateLimiter> {
    Box::new(move |peer: PeerId, _: &Multiaddr, _| {
        let holders = holders.lock().unwrap_or_else(PoisonError::into_inner);
        holders.len() < most || holders.contains_key(&peer)
    })
}

/// Shows a limiter the network that a peer is in: whoever has an IPv6 address has millions.
fn per_network(mut limiter: Box<dyn RateLimiter>) -> Box<dyn RateLimiter> {
    Box::new(move |peer, address: &Multiaddr, now| match limits::network(address) {
        Some(network) => limiter.try_next(peer, &network.into(), now),
        None => limiter.try_next(peer, address, now),
    })
}

/// How long a reservation holds; its owner renews it at three quarters of that.
pub(crate) const RESERVATION: Duration = Duration::from_secs(15 * 60);
/// One over TCP and one over QUIC, and as many again after a loss that we have not noticed yet.
const RESERVATIONS_PER_PEER: usize = 4;
const BURST_PER_PEER: NonZeroU32 = NonZeroU32::new(60).expect("not zero");
const BURST_PER_IP: NonZeroU32 = NonZeroU32::new(1024).expect("not zero");
