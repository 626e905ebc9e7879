//! What peers report: what they are, where they see us, and whether they reach us.
//! `narthex doctor` shows it; reservations use it to meet relays.

use std::net::SocketAddr;

use libp2p::{StreamProtocol, relay};

use crate::{identity::PublicKey, network::protocols::KAD_PROTOCOL};
#[cfg(feature = "cli")]
use crate::{
    network::links::status::LinkTransport,
    wire::{AnnounceError, REGISTER_PROTOCOL},
};

/// Something that another peer has reported.
#[derive(Clone, Debug)]
pub(crate) enum Observation {
    /// A peer has reported what it is.
    Identified {
        peer: PublicKey,
        #[cfg(feature = "cli")]
        transport: LinkTransport,
        /// Where it sees us; none if that means nothing to others, as through a relay.
        seen_at: Option<SocketAddr>,
        kind: PeerKind,
    },
    /// A node has tried to dial an address of ours, as we asked.
    #[cfg(feature = "cli")]
    DialledBack { address: SocketAddr, transport: LinkTransport, reached: bool },
    /// A node has answered a look-up with an announcement that is not genuine.
    #[cfg(feature = "cli")]
    InvalidAnnouncement { peer: PublicKey, error: AnnounceError },
}

/// What a peer is, by the protocols that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerKind {
    /// The peer answers the DHT.
    pub(crate) node: bool,
    /// The peer carries links of others.
    pub(crate) relay: bool,
    /// The peer answers registrations.
    #[cfg(feature = "cli")]
    pub(crate) scraper: bool,
}

impl PeerKind {
    pub(crate) fn of(protocols: &[StreamProtocol]) -> Self {
        Self {
            node: protocols.contains(&KAD_PROTOCOL),
            relay: protocols.contains(&relay::HOP_PROTOCOL_NAME),
            #[cfg(feature = "cli")]
            scraper: protocols.contains(&StreamProtocol::new(REGISTER_PROTOCOL)),
        }
    }
}
