//! What a relay bears: circuits between peers that cannot reach each other directly.
//!
//! libp2p's defaults (128 KiB or 2 minutes a circuit, 16 circuits) are made for hole punching alone; ours must carry
//! scrapes for as long as two peers can do no better.

use std::{num::NonZeroU32, time::Duration};

use libp2p::{PeerId, relay};

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

pub(super) fn behaviour(local: PeerId, limits: RelayLimits) -> relay::Behaviour {
    let config = relay::Config {
        max_reservations: limits.reservations,
        max_reservations_per_peer: RESERVATIONS_PER_PEER,
        reservation_duration: RESERVATION,
        max_circuits: limits.circuits,
        max_circuits_per_peer: limits.circuits_per_peer,
        max_circuit_duration: limits.circuit_duration,
        max_circuit_bytes: limits.circuit_bytes,
        reservation_rate_limiters: Vec::new(),
        circuit_src_rate_limiters: Vec::new(),
    };
    // A peer retries with backoff and stays far below its rate; a whole office may come from one address.
    let config = config
        .reservation_rate_per_peer(BURST_PER_PEER, Duration::from_secs(5))
        .reservation_rate_per_ip(BURST_PER_IP, Duration::from_millis(200))
        .circuit_src_per_peer(BURST_PER_PEER, Duration::from_secs(5))
        .circuit_src_per_ip(BURST_PER_IP, Duration::from_millis(50));
    let mut relay = relay::Behaviour::new(local, config);
    relay.set_status(Some(relay::Status::Enable));
    relay
}

/// How long a reservation holds; its owner renews it at three quarters of that.
pub(super) const RESERVATION: Duration = Duration::from_secs(15 * 60);
/// One over TCP and one over QUIC, and as many again after a loss that we have not noticed yet.
const RESERVATIONS_PER_PEER: usize = 4;
const BURST_PER_PEER: NonZeroU32 = NonZeroU32::new(60).expect("not zero");
const BURST_PER_IP: NonZeroU32 = NonZeroU32::new(1024).expect("not zero");
