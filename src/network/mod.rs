//! The peer-to-peer network: one task owns the libp2p swarm, all others hold a [`Network`].
//!
//! The network knows peers by their keys: dials them (by hint, by a remembered address, by the signed announcement in the
//! DHT), keeps links, and opens and accepts streams by protocol and by key. A link is one or more connections, used in
//! both directions. It knows nothing of aliases or HTTP; libp2p's types do not leave this module.
//!
//! - `handle`: everything that one may ask of the network. `config` and `error` are its input and its failures.
//! - `links`: the connections to peers, their streams, and how a peer is dialled.
//! - `swarm`: the task that owns the swarm, and the behaviours that it is made of.
//! - `transport`: sockets, the proxy, certificates, streams of a connection.
//! - `upkeep`: tasks that a role runs beside its network.

mod address;
mod command;
mod config;
mod error;
mod failure;
#[cfg(all(any(fuzzing, test), feature = "cli"))]
pub(crate) mod fuzzing;
mod handle;
mod host;
mod links;
#[cfg(feature = "scraper")]
mod observation;
pub(crate) mod patience;
mod peer_id;
mod protocols;
mod reach;
mod swarm;
#[cfg(all(test, feature = "cli"))]
mod tests;
mod transport;
mod upkeep;
#[cfg(feature = "cli")]
mod whereabouts;

#[cfg(any(feature = "scraper", feature = "node"))]
pub use config::DEFAULT_P2P_PORT;
pub use config::NetworkLimits;
#[cfg(feature = "node")]
pub use config::{DialBackLimits, RelayLimits};
pub use error::{Attempt, AttemptKind, ConnectError, NetworkError, RelayRefusal};
pub use links::status::{LinkPath, LinkTransport};

#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) use config::default_listen;
pub(crate) use config::{NetworkConfig, NetworkRole, check_bootstrap};
pub(crate) use handle::Network;
pub(crate) use links::{
    acceptor::{Acceptor, Admitted, Firewall, FirewallBlock, InboundStream},
    connection::{LinkId, OpenError},
    stream::{LinkStream, is_unsupported},
    table::Links,
};
#[cfg(feature = "scraper")]
pub(crate) use links::{
    source::Source,
    status::{LinkChange, LinkCounts, LinkStatus},
    table::LinkEvent,
};
#[cfg(feature = "cli")]
pub(crate) use observation::{Observation, PeerKind};
pub(crate) use protocols::PULL_PROTOCOL;
#[cfg(all(test, feature = "cli"))]
pub(crate) use swarm::build::HANDSHAKE_TIMEOUT;
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) use swarm::inbound_metrics::inbound_metrics;
#[cfg(feature = "node")]
pub(crate) use swarm::node_stats::NodeCounts;
#[cfg(all(test, feature = "node"))]
pub(crate) use swarm::node_stats::{CircuitEnds, CircuitRefusals, RecordRefusals};
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) use transport::inbound::InboundCounts;
#[cfg(feature = "scraper")]
pub(crate) use transport::muxing::MAX_PULL_STREAMS;
#[cfg(all(test, feature = "cli"))]
pub(crate) use transport::muxing::{MAX_QUIC_STREAMS, MAX_STREAMS};
#[cfg(feature = "cli")]
pub(crate) use transport::resolve::resolve;
#[cfg(feature = "node")]
pub(crate) use upkeep::followers;
#[cfg(feature = "scraper")]
pub(crate) use upkeep::{announcer::announce, proved::keep_proved, reservations::keep_reservations};
pub(crate) use upkeep::{
    backoff::{Redial, redial_backoff},
    following::linked_by_following,
    upgrade::keep_upgrading,
};
#[cfg(any(feature = "scraper", feature = "node"))]
pub(crate) use upkeep::{external::keep_external, nodes::keep_nodes};
#[cfg(feature = "cli")]
pub(crate) use whereabouts::Whereabouts;
