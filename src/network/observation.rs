//! What peers report: what they are, where they see us, whether they reach us, and where a key is announced to be.
//! `narthex doctor` shows it; reservations use it to meet relays.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use libp2p::{Multiaddr, StreamProtocol, relay};

use crate::{
    identity::PublicKey,
    network::{
        address::{self, Circuit},
        links::status::LinkTransport,
        protocols::KAD_PROTOCOL,
    },
    wire::{AnnounceError, Announcement, REGISTER_PROTOCOL},
};

/// Something that another peer has reported.
#[derive(Clone, Debug)]
pub(crate) enum Observation {
    /// A peer has reported what it is.
    Identified {
        peer: PublicKey,
        transport: LinkTransport,
        /// Where it sees us; none if that means nothing to others, as through a relay.
        seen_at: Option<SocketAddr>,
        kind: PeerKind,
    },
    /// A node has tried to dial an address of ours, as we asked.
    DialledBack { address: SocketAddr, transport: LinkTransport, reached: bool },
    /// A node has answered a look-up with an announcement that is not genuine.
    Disbelieved { peer: PublicKey, error: AnnounceError },
}

/// What a peer is, by the protocols that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerKind {
    /// It answers the DHT.
    pub(crate) node: bool,
    /// It carries links of others.
    pub(crate) relay: bool,
    /// It answers registrations.
    pub(crate) scraper: bool,
}

impl PeerKind {
    pub(crate) fn of(protocols: &[StreamProtocol]) -> Self {
        Self {
            node: protocols.contains(&KAD_PROTOCOL),
            relay: protocols.contains(&relay::HOP_PROTOCOL_NAME),
            scraper: protocols.contains(&StreamProtocol::new(REGISTER_PROTOCOL)),
        }
    }
}

/// What an announcement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    /// When it was made, by its owner's clock.
    pub(crate) announced_at: SystemTime,
    /// Addresses that mean something everywhere.
    pub(crate) public: usize,
    /// Addresses that mean something in the peer's own network.
    pub(crate) private: usize,
    /// Ways through a relay.
    pub(crate) relayed: usize,
}

impl From<Announcement> for Whereabouts {
    fn from(announcement: Announcement) -> Self {
        let announced_at = UNIX_EPOCH + Duration::from_micros(announcement.sequence);
        let mut found = Self { announced_at, public: 0, private: 0, relayed: 0 };
        for address in announcement.addresses.into_iter().filter_map(|bytes| Multiaddr::try_from(bytes).ok()) {
            if Circuit::parse(&address).is_some() {
                found.relayed += 1;
            } else if address::is_dialable(&address) {
                let count = if address::is_private(&address) { &mut found.private } else { &mut found.public };
                *count += 1;
            }
        }
        found
    }
}
