//! Where a peer announces to be: what `narthex doctor` shows of an announcement.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p::Multiaddr;

use crate::{
    network::address::{self, Circuit},
    wire::Announcement,
};

/// What an announcement contains.
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
