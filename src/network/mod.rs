//! The peer-to-peer network: one task owns the libp2p swarm, everybody else holds a `Network`.
//!
//! It knows peers by their keys: dials them (by hint, by a remembered address, by the signed announcement in the DHT),
//! keeps links, and opens and accepts streams by protocol and by key. A link is one connection, used in both
//! directions. It knows nothing of aliases or HTTP; libp2p's types do not leave this module.

// A client alone needs neither listeners nor announcements, a service no look from outside.
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]

mod config;
mod error;
mod failure;
mod handle;
mod links;
mod observation;
mod peer_id;
mod reach;
mod swarm;
#[cfg(test)]
mod tests;
mod transport;
mod upkeep;

pub use config::{DEFAULT_P2P_PORT, NetworkLimits};
pub use error::{Attempt, AttemptKind, ConnectError, NetworkError, RelayRefusal};
pub use links::status::{LinkChange, LinkCounts, LinkPath, LinkStatus, LinkTransport};
pub use swarm::{
    limits::InboundCounts,
    node_stats::{CircuitEnds, CircuitRefusals, NodeCounts, RecordRefusals},
    relay::limits::RelayLimits,
};

pub(crate) use config::{NetworkConfig, NetworkRole, default_listen};
pub(crate) use handle::Network;
pub(crate) use links::{
    dial::resolve,
    stream::{LinkId, LinkStream, is_unsupported},
    table::{LinkEvent, Links, OpenError},
};
pub(crate) use observation::{Observation, PeerKind, Whereabouts};
#[cfg(all(test, feature = "cli"))]
pub(crate) use swarm::build::{HANDSHAKE_TIMEOUT, MAX_QUIC_STREAMS, MAX_STREAMS, max_handshakes};
#[cfg(feature = "scraper")]
pub(crate) use swarm::inbound_metrics::InboundMetrics;
pub(crate) use swarm::{
    build::MAX_PULL_STREAMS,
    stream_behaviour::{Acceptor, Firewall, FirewallBlock, InboundStream},
};
pub(crate) use upkeep::{
    announcer::{announce, keep_nodes},
    backoff::redial_backoff,
    external::keep_external,
    reservations::keep_reservations,
    upgrade::keep_upgrading,
};

/// HTTP/1.1, scraper asking client.
pub(crate) const PULL_PROTOCOL: &str = "/narthex/pull/1";
