//! What a peer can find out about the network around it: what others are, where they see us, whether they get back to
//! us, and where a key is said to be. Nothing depends on it but the eyes of a person: `narthex doctor`.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use libp2p::{Multiaddr, StreamProtocol, relay};
use tokio::{sync::broadcast, time};

use crate::{
    identity::PublicKey,
    network::{
        error::ConnectError,
        handle::Network,
        links::{dial::explain, status::LinkTransport},
        peer_id::{self, Circuit},
        swarm::build::KAD_PROTOCOL,
        upkeep::reservations,
    },
    wire::{AnnounceError, Announcement, REGISTER_PROTOCOL},
};

/// Something that another peer told.
#[derive(Clone, Debug)]
pub(crate) enum Observation {
    /// A peer said what it is.
    Identified {
        peer: PublicKey,
        transport: LinkTransport,
        /// Where it sees us; none if that means nothing to others, as through a relay.
        seen_at: Option<SocketAddr>,
        kind: PeerKind,
    },
    /// A node tried to dial an address of ours, at our wish.
    DialledBack { address: SocketAddr, transport: LinkTransport, reached: bool },
    /// A node answered a look-up with an announcement that is not to be believed.
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
            } else if peer_id::is_dialable(&address) {
                let count = if peer_id::is_private(&address) { &mut found.private } else { &mut found.public };
                *count += 1;
            }
        }
        found
    }
}

impl Network {
    /// What others tell, from now on.
    pub(crate) fn observations(&self) -> broadcast::Receiver<Observation> {
        self.observations.subscribe()
    }

    /// Asks the DHT where a peer says that it is, and takes the newest of what the nodes have.
    ///
    /// # Errors
    /// [`ConnectError`] if no bootstrap node can be reached.
    pub(crate) async fn find(&self, peer: &PublicKey) -> Result<Option<Whereabouts>, ConnectError> {
        let mut answers = self.lookup(peer).await.map_err(|failure| explain(peer, failure))?;
        let Some(mut newest) = answers.recv().await else { return Ok(None) };
        let others = async {
            while let Some(answer) = answers.recv().await {
                if answer.supersedes(&newest) {
                    newest = answer;
                }
            }
        };
        // A node that is gone would be waited for until its query ends.
        let _ = time::timeout(OTHERS, others).await;
        Ok(Some(newest.into()))
    }

    /// Asks a linked node for a reservation, and gives it up again.
    ///
    /// # Errors
    /// What the node answered.
    pub(crate) async fn try_reservation(&self, relay: PublicKey) -> Result<(), String> {
        reservations::reserve(self, relay).await.map(drop).map_err(|why| why.to_string())
    }

    /// Our own ends: the addresses that we listen on.
    pub(crate) fn ends(&self) -> Vec<(LinkTransport, SocketAddr)> {
        let reach = self.reach.borrow();
        let own = reach.listeners.iter().filter(|address| peer_id::is_dialable(address));
        own.filter_map(|address| Some((LinkTransport::of(address), peer_id::socket_addr(address)?))).collect()
    }
}

const OTHERS: Duration = Duration::from_secs(1);
