//! Why the network could not start.

use std::io;

use crate::identity::{DialAddress, HostPort, PublicKey};

/// Why the network could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A listen address is taken, or not ours.
    #[error("cannot listen on {place} (TCP and UDP): {reason}; is another process using it? --listen gives another")]
    Listen {
        /// As it was given.
        place: HostPort,
        /// What the operating system said.
        reason: String,
    },
    /// A place for WebSocket links is taken, or not ours.
    #[error(
        "cannot listen for WebSocket links on {place}: {reason}; is something else using it? --listen-ws gives another"
    )]
    ListenWebSocket {
        /// As it was given.
        place: HostPort,
        /// What the operating system said.
        reason: String,
    },
    /// A scraper or a node that listens nowhere serves nobody.
    #[error("no listen address: a scraper or a node needs at least one, of a family that this host has")]
    NoListen,
    /// A bootstrap node without its place cannot be dialled.
    #[error("bootstrap node {0} needs its place: give it as <key>@<host>:<port>")]
    BootstrapPlace(PublicKey),
    /// A bootstrap node that is this peer itself.
    #[error("--bootstrap {0} is this peer's own key: give another node, or none")]
    BootstrapSelf(PublicKey),
    /// An external address is a name that does not resolve.
    #[error("external address {0} does not resolve")]
    External(DialAddress),
    /// A relay that does not know where it is makes nobody reachable.
    #[error("a relay needs an address that others reach it at: none of ours is public, so give --external HOST:PORT")]
    RelayPlace,
    /// The system does not tell which networks there are.
    #[error("mDNS cannot be used here: {0}")]
    Mdns(io::Error),
    /// The transports could not be set up.
    #[error("cannot set up the transports")]
    Transport {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
