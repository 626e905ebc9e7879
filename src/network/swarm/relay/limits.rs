//! The bounds of a relay: circuits between peers that cannot reach each other directly.
//!
//! libp2p's defaults (128 KiB or 2 minutes a circuit, 16 circuits) are made for hole punching alone; ours must carry
//! scrapes for as long as two peers can do no better.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId,
    relay::{self, RateLimiter},
    swarm::ConnectionId,
};

use crate::{
    identity::PublicKey,
    network::{
        address,
        config::{RESERVATION, RelayLimits},
        peer_id,
    },
};

/// A peer retries with backoff and stays far below.
const BURST_PER_PEER: NonZeroU32 = NonZeroU32::new(60).expect("not zero");
/// A whole office may come from one address.
const BURST_PER_IP: NonZeroU32 = NonZeroU32::new(1024).expect("not zero");

/// Peers that hold reservations, with the connections that they hold them on.
pub(crate) type ReservedPeers = Arc<Mutex<HashMap<PeerId, Vec<ConnectionId>>>>;

/// The peers that may reserve; all if none are listed. Circuits lead to peers with a reservation alone.
#[derive(Clone)]
pub(crate) struct OnlyFor(HashSet<PeerId>);

impl OnlyFor {
    pub(crate) fn new(listed: &[PublicKey]) -> Self {
        Self(listed.iter().map(peer_id::peer_id).collect())
    }

    pub(crate) fn permits(&self, peer: &PeerId) -> bool {
        self.0.is_empty() || self.0.contains(peer)
    }
}

pub(crate) fn behaviour(
    local: PeerId,
    limits: RelayLimits,
    only_for: OnlyFor,
    reserved: ReservedPeers,
) -> relay::Behaviour {
    let config = relay::Config {
        // Counted by the first of the limiters: this would refuse renewals, too, at a relay that is full.
        max_reservations: usize::MAX,
        // Each is on a connection of its own, and those of a peer have their limit.
        max_reservations_per_peer: usize::MAX,
        reservation_duration: RESERVATION,
        max_circuits: limits.circuits,
        // libp2p lets one more pass.
        max_circuits_per_peer: limits.circuits_per_peer.saturating_sub(1),
        max_circuit_duration: limits.circuit_duration,
        max_circuit_bytes: limits.circuit_bytes,
        reservation_rate_limiters: vec![only(only_for), room_for_reserved(limits.reservations, reserved)],
        circuit_src_rate_limiters: Vec::new(),
    };
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

fn only(listed: OnlyFor) -> Box<dyn RateLimiter> {
    Box::new(move |peer: PeerId, _: &Multiaddr, _| listed.permits(&peer))
}

/// Lets those renew who have a reservation, and others in as long as there is room.
fn room_for_reserved(most: usize, reserved: ReservedPeers) -> Box<dyn RateLimiter> {
    Box::new(move |peer: PeerId, _: &Multiaddr, _| {
        let reserved = reserved.lock().unwrap_or_else(PoisonError::into_inner);
        reserved.len() < most || reserved.contains_key(&peer)
    })
}

/// Gives a limiter the network that a peer is in: the owner of an IPv6 address has millions of them.
fn per_network(mut limiter: Box<dyn RateLimiter>) -> Box<dyn RateLimiter> {
    Box::new(move |peer, address: &Multiaddr, now| match address::network(address) {
        Some(network) => limiter.try_next(peer, &network.into(), now),
        None => limiter.try_next(peer, address, now),
    })
}
