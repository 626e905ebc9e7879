//! What the network's handle asks of the task that owns the swarm.

use libp2p::Multiaddr;
#[cfg(any(feature = "scraper", feature = "client"))]
use libp2p::swarm::ConnectionId;
#[cfg(feature = "node")]
use tokio::sync::watch;
use tokio::sync::{mpsc, oneshot};

#[cfg(feature = "scraper")]
use crate::network::failure::NoReservation;
use crate::{
    identity::PublicKey,
    network::{failure::DialFailure, links::connection::LinkId},
    wire::Announcement,
};

pub(crate) enum Command {
    /// Dials one peer at some addresses, all at once; answers with the address that worked.
    Dial { peer: PublicKey, addresses: Vec<Multiaddr>, reply: oneshot::Sender<Result<Multiaddr, DialFailure>> },
    /// Asks the DHT where a peer is. Each node's answer that the peer itself has signed is handed on as it comes, until
    /// all have answered or nobody listens any more.
    Lookup { peer: PublicKey, found: mpsc::Sender<Announcement> },
    /// Hands our signed announcement to nodes. What they do with it shows only in a look-up.
    #[cfg(feature = "scraper")]
    Put { peer: PublicKey, signed: Vec<u8>, to: Holders, done: oneshot::Sender<()> },
    /// Puts a node into the routing table.
    AddNode { peer: PublicKey, address: Multiaddr },
    /// Asks a relay for a reservation: to be reachable through it. `accepted` fires once the relay has granted it,
    /// `ended` when the relay refuses or the reservation is lost. The reservation is given up once nobody waits for its
    /// end.
    #[cfg(feature = "scraper")]
    Reserve { link: LinkId, accepted: oneshot::Sender<()>, ended: oneshot::Sender<NoReservation> },
    /// At a node: the latest announcement of a peer, now and as later ones come.
    #[cfg(feature = "node")]
    Follow { peer: PublicKey, latest: oneshot::Sender<watch::Receiver<Option<Vec<u8>>>> },
    /// One who followed the peer does so no more.
    #[cfg(feature = "node")]
    Unfollow { peer: PublicKey },
    /// Sets the addresses that the operator's external ones resolve to now.
    #[cfg(any(feature = "scraper", feature = "node"))]
    External { addresses: Vec<Multiaddr> },
    /// Gives up a connection that answers nothing, and if it is direct the other direct ones to the same peer.
    Disconnect { peer: PublicKey, link: LinkId },
    /// Closes connections of this list that answer no ping.
    #[cfg(any(feature = "scraper", feature = "client"))]
    Test { connections: Vec<(PublicKey, ConnectionId)> },
    /// Closes one connection.
    #[cfg(feature = "scraper")]
    Close { link: LinkId, why: &'static str },
}

/// Which nodes are handed an announcement.
#[cfg(feature = "scraper")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holders {
    /// The linked nodes: reached at once.
    Linked,
    /// The nodes closest to our key, where everybody looks. They are searched for first, which takes longer with a dead
    /// node in the tables.
    Closest,
}
