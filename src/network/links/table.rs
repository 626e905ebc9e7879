//! The table of links: every connection by its id, and every peer with its connections.
//!
//! The stream behaviour and the driver, both inside the swarm's task, write to the table; everybody reads. The mutex is
//! held for a few map operations, never over an `.await`.
//!
//! A connection is *listed* from the moment when it is established until it is given up or closed. A connection that was
//! given up stays in the map, unlisted, until libp2p reports that it is closed.

mod kept;
mod open;
pub(crate) mod room;
mod superseded;
mod wait;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
#[cfg(feature = "scraper")]
use std::{net::IpAddr, time::SystemTime};

use libp2p::{Multiaddr, swarm::ConnectionId};
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

#[cfg(any(feature = "scraper", feature = "node"))]
use crate::network::links::status::LinkCounts;
#[cfg(feature = "scraper")]
use crate::network::{
    address,
    links::{
        source::Source,
        status::{LinkChange, LinkStatus},
    },
};
use crate::{
    identity::PublicKey,
    network::{
        address::Circuit,
        links::{
            connection::{Connection, LinkId},
            origins::Origins,
            status::{LinkPath, LinkTransport},
        },
    },
};

/// A receiver that falls further behind gets an error, and reads the table instead.
const EVENTS_KEPT: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkEvent {
    /// The first connection to a peer is there.
    Up(PublicKey),
    /// The last connection to a peer is gone.
    Down(PublicKey),
}

#[derive(Default)]
struct Peer {
    /// The listed connections, best first.
    connections: Vec<ConnectionId>,
    /// Read by the handlers: whether an idle connection to this peer stays open.
    kept: Arc<AtomicBool>,
    lost_at: Option<Instant>,
    #[cfg(feature = "scraper")]
    change: Option<LinkChange>,
    punches_succeeded: u32,
    punches_failed: u32,
    /// Kept for good: a node.
    always: bool,
    /// It waits here to be told of another peer.
    follows: bool,
    /// Kept for what it has proved alone: its connections make room as a stranger's do.
    #[cfg(feature = "scraper")]
    claimant: bool,
}

#[derive(Default)]
struct Table {
    connections: HashMap<ConnectionId, Connection>,
    peers: HashMap<PublicKey, Peer>,
    origins: Origins,
}

impl Table {
    fn of(&self, peer: &PublicKey) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        let ids = self.peers.get(peer).into_iter().flat_map(|peer| &peer.connections);
        ids.filter_map(|id| Some((*id, self.connections.get(id)?)))
    }

    fn best(&self, peer: &PublicKey) -> Option<(ConnectionId, &Connection)> {
        self.of(peer).next()
    }

    fn path(&self, peer: &PublicKey) -> Option<LinkPath> {
        self.best(peer).map(|(_, best)| best.path)
    }

    fn direct(&self, peer: &PublicKey) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.of(peer).filter(|(_, connection)| connection.is_direct())
    }

    fn listed(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.peers.keys().flat_map(|peer| self.of(peer))
    }

    /// True of strangers, and of peers that have proved a secret and hold no alias.
    fn makes_room(&self, peer: &PublicKey) -> bool {
        #[cfg(feature = "scraper")]
        let claimant = self.peers.get(peer).is_some_and(|peer| peer.claimant);
        #[cfg(not(feature = "scraper"))]
        let claimant = false;
        claimant || !self.is_kept(peer)
    }

    fn is_kept(&self, peer: &PublicKey) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.kept.load(Ordering::Relaxed))
    }

    /// Follows up on a change of a peer's listed connections: stores the reason if the path has changed, and marks
    /// the connections that have nothing more to do.
    fn changed(&mut self, peer: &PublicKey, before: Option<LinkPath>, reason: String) {
        if self.path(peer) != before {
            tracing::debug!(%peer, reason, "the path to a peer has changed");
            #[cfg(feature = "scraper")]
            if let Some(peer) = self.peers.get_mut(peer) {
                peer.change = Some(LinkChange { at: SystemTime::now(), reason });
            }
        }
        self.mark_superseded(peer);
    }
}

struct Shared {
    table: Mutex<Table>,
    changes: watch::Sender<u64>,
    identified: watch::Sender<()>,
    /// Since when it has been known whose links are kept; nobody is a stranger before.
    known_since: watch::Sender<Option<Instant>>,
    events: broadcast::Sender<LinkEvent>,
    #[cfg(any(feature = "scraper", feature = "node"))]
    relays: watch::Sender<usize>,
    punches_succeeded: AtomicU64,
    punches_failed: AtomicU64,
}

/// The table of links. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Links(Arc<Shared>);

/// What everybody may ask.
impl Links {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            table: Mutex::default(),
            changes: watch::Sender::new(0),
            identified: watch::Sender::new(()),
            known_since: watch::Sender::new(None),
            events: broadcast::Sender::new(EVENTS_KEPT),
            #[cfg(any(feature = "scraper", feature = "node"))]
            relays: watch::Sender::new(0),
            punches_succeeded: AtomicU64::new(0),
            punches_failed: AtomicU64::new(0),
        }))
    }

    pub(crate) fn path(&self, peer: &PublicKey) -> Option<LinkPath> {
        self.table().path(peer)
    }

    pub(crate) fn best(&self, peer: &PublicKey) -> Option<LinkId> {
        self.table().best(peer).map(|(id, _)| LinkId(id))
    }

    /// The other end's address of the best connection to a peer.
    pub(crate) fn address(&self, peer: &PublicKey) -> Option<Multiaddr> {
        self.table().best(peer).map(|(_, best)| best.address.clone())
    }

    /// The way of the best connection to a peer; the transport only of a direct one.
    pub(crate) fn way(&self, peer: &PublicKey) -> Option<(LinkPath, Option<LinkTransport>)> {
        self.table().best(peer).map(|(_, best)| best.rank())
    }

    pub(crate) fn transports(&self, peer: &PublicKey) -> Vec<LinkTransport> {
        self.table().direct(peer).map(|(_, connection)| connection.transport()).collect()
    }

    #[cfg(feature = "node")]
    pub(crate) fn connections(&self) -> HashMap<LinkTransport, usize> {
        let mut connections = HashMap::new();
        for (_, connection) in self.table().listed() {
            *connections.entry(connection.transport()).or_default() += 1;
        }
        connections
    }

    /// What is known of the way to a peer.
    #[cfg(feature = "scraper")]
    pub(crate) fn status(&self, peer: &PublicKey) -> LinkStatus {
        let table = self.table();
        let Some(known) = table.peers.get(peer) else { return LinkStatus::default() };
        let best = table.best(peer).map(|(_, best)| best);
        LinkStatus {
            path: best.map(|best| best.path),
            transport: best.map(Connection::transport),
            address: best
                .and_then(|best| address::dial_address(&best.address))
                .map(|address| address.host_port().to_string()),
            rtt: best.and_then(|best| best.rtt),
            punches_succeeded: known.punches_succeeded,
            punches_failed: known.punches_failed,
            change: known.change.clone(),
        }
    }

    #[cfg(feature = "scraper")]
    pub(crate) fn relays(&self) -> &watch::Sender<usize> {
        &self.0.relays
    }

    #[cfg(any(feature = "scraper", feature = "node"))]
    pub(crate) fn counts(&self) -> LinkCounts {
        let mut counts = LinkCounts {
            relays: *self.0.relays.borrow(),
            punches_succeeded: self.0.punches_succeeded.load(Ordering::Relaxed),
            punches_failed: self.0.punches_failed.load(Ordering::Relaxed),
            ..LinkCounts::default()
        };
        let table = self.table();
        for path in table.peers.keys().filter_map(|peer| table.path(peer)) {
            match path {
                LinkPath::Direct => counts.direct += 1,
                LinkPath::Relayed => counts.relayed += 1,
            }
        }
        counts
    }

    #[cfg(feature = "scraper")]
    pub(crate) fn events(&self) -> broadcast::Receiver<LinkEvent> {
        self.0.events.subscribe()
    }

    /// How long ago the last link to a kept peer was lost; none if there is a link or there never was one.
    pub(crate) fn lost_for(&self, peer: &PublicKey) -> Option<Duration> {
        self.table().peers.get(peer)?.lost_at.map(|at| at.elapsed())
    }

    #[cfg(feature = "scraper")]
    pub(crate) fn is_listed(&self, peer: &PublicKey, link: LinkId) -> bool {
        self.table().of(peer).any(|(id, _)| id == link.0)
    }

    /// The peer at the other end of a connection, and where it is.
    #[cfg(feature = "scraper")]
    pub(crate) fn listed(&self, id: ConnectionId) -> Option<(PublicKey, Multiaddr)> {
        let table = self.table();
        let connection = table.connections.get(&id)?;
        let listed = table.of(&connection.peer).any(|(other, _)| other == id);
        listed.then(|| (connection.peer, connection.address.clone()))
    }

    /// The direct connections that we have opened to a peer, each with where it leads.
    #[cfg(feature = "scraper")]
    pub(crate) fn opened(&self, peer: &PublicKey) -> Vec<(LinkId, Multiaddr)> {
        let table = self.table();
        let dialled = |connection: &Connection| !connection.inbound && address::is_dialable(&connection.address);
        let opened = table.direct(peer).filter(|(_, connection)| dialled(connection));
        opened.map(|(id, connection)| (LinkId(id), connection.address.clone())).collect()
    }

    /// Ranks a connection below all others of its peer.
    #[cfg(feature = "scraper")]
    pub(crate) fn demote(&self, peer: &PublicKey, link: LinkId) {
        {
            let mut table = self.table();
            let before = table.path(peer);
            let Some(entry) = table.peers.get_mut(peer) else { return };
            let Some(at) = entry.connections.iter().position(|id| *id == link.0) else { return };
            let id = entry.connections.remove(at);
            entry.connections.push(id);
            table.changed(peer, before, "another process of the peer's key has connected".to_owned());
        }
        self.has_changed();
    }

    /// The networks that a peer's direct connections come from.
    #[cfg(feature = "scraper")]
    pub(crate) fn networks(&self, peer: &PublicKey) -> Vec<IpAddr> {
        self.table().direct(peer).filter_map(|(_, connection)| address::network(&connection.address)).collect()
    }

    /// Where the peer of a connection is.
    #[cfg(feature = "scraper")]
    pub(crate) fn source(&self, link: LinkId) -> Option<Source> {
        self.table().connections.get(&link.0).map(|connection| Source::of(&connection.address))
    }
}

/// What the swarm's task writes, and asks.
impl Links {
    /// Lists a connection that was established.
    pub(crate) fn add(&self, id: ConnectionId, connection: Connection) {
        let peer = connection.peer;
        let first = {
            let mut table = self.table();
            let (before, reason) = (table.path(&peer), format!("connected {}", connection.describe()));
            // Of equals the newest first: a peer that comes back after a crash or with a new address may have left a
            // connection behind, and nothing has shown yet that it is dead.
            let at = table.of(&peer).take_while(|(_, other)| other.rank() < connection.rank()).count();
            let stranger = table.makes_room(&peer);
            table.origins.enter(id, &connection, stranger);
            table.connections.insert(id, connection);
            let entry = table.peers.entry(peer).or_default();
            entry.lost_at = None;
            entry.connections.insert(at, id);
            let first = entry.connections.len() == 1;
            table.changed(&peer, before, reason);
            if (before, table.path(&peer)) == (Some(LinkPath::Relayed), Some(LinkPath::Direct))
                && let Some(entry) = table.peers.get_mut(&peer)
            {
                entry.punches_succeeded = entry.punches_succeeded.saturating_add(1);
                self.0.punches_succeeded.fetch_add(1, Ordering::Relaxed);
            }
            first
        };
        self.has_changed();
        if first {
            let _ = self.0.events.send(LinkEvent::Up(peer));
        }
    }

    /// Takes a connection off the list, if it is still there; its streams end.
    pub(crate) fn unlist(&self, id: ConnectionId, reason: &str) {
        let (peer, last) = {
            let mut table = self.table();
            let Some(connection) = table.connections.get(&id) else { return };
            let (peer, gone) = (connection.peer, connection.control.gone.clone());
            let reason = format!("lost the connection {}: {reason}", connection.describe());
            let before = table.path(&peer);
            let Some(entry) = table.peers.get_mut(&peer) else { return };
            let Some(at) = entry.connections.iter().position(|listed| *listed == id) else { return };
            entry.connections.remove(at);
            let last = entry.connections.is_empty();
            if last {
                entry.lost_at = Some(Instant::now());
            }
            gone.cancel();
            let Table { connections, origins, .. } = &mut *table;
            connections.get(&id).inspect(|connection| origins.leave(id, connection));
            table.changed(&peer, before, reason);
            if last && !table.is_kept(&peer) {
                table.peers.remove(&peer);
            }
            (peer, last)
        };
        self.has_changed();
        if last {
            let _ = self.0.events.send(LinkEvent::Down(peer));
        }
    }

    /// Drops the state of a connection that libp2p has reported as closed.
    pub(crate) fn forget(&self, id: ConnectionId) -> Option<Connection> {
        self.table().connections.remove(&id)
    }

    pub(crate) fn update<T>(&self, id: ConnectionId, change: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        self.table().connections.get_mut(&id).map(change)
    }

    /// The peer has reported who it is, and how it sees us.
    pub(crate) fn on_identified(&self, id: ConnectionId) {
        if self.update(id, |connection| connection.identified = true).is_some() {
            self.0.identified.send_replace(());
        }
    }

    pub(crate) fn measured(&self, id: ConnectionId, rtt: Duration) {
        tracing::trace!(%id, ?rtt, "ping answered");
        #[cfg(feature = "scraper")]
        self.update(id, |connection| connection.rtt = Some(rtt));
    }

    /// A hole punch was given up. Its other end may have succeeded.
    pub(crate) fn punch_failed(&self, peer: &PublicKey) {
        let mut table = self.table();
        if table.path(peer) == Some(LinkPath::Relayed)
            && let Some(peer) = table.peers.get_mut(peer)
        {
            peer.punches_failed = peer.punches_failed.saturating_add(1);
            self.0.punches_failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn direct(&self, peer: &PublicKey) -> Vec<ConnectionId> {
        self.table().direct(peer).map(|(id, _)| id).collect()
    }

    /// The circuits that a relay carries.
    pub(crate) fn through(&self, relay: &PublicKey) -> Vec<ConnectionId> {
        self.select(|_, connection| {
            let circuit = if connection.is_direct() { None } else { Circuit::parse(&connection.address) };
            circuit.is_some_and(|circuit| circuit.relay == *relay)
        })
    }

    /// Connections whose local address is no longer ours.
    pub(crate) fn moved(&self) -> Vec<(PublicKey, ConnectionId)> {
        let end = |(id, connection): (_, &Connection)| Some(((connection.peer, id), connection.local_end?));
        let ends: Vec<_> = self.table().listed().filter_map(end).collect();
        // Without the lock: each answer takes a system call.
        ends.into_iter().filter(|(_, end)| end.has_moved()).map(|(moved, _)| moved).collect()
    }

    /// Every connection.
    pub(crate) fn all(&self) -> Vec<(PublicKey, ConnectionId)> {
        self.table().listed().map(|(id, connection)| (connection.peer, id)).collect()
    }

    /// Every connection to a peer.
    pub(crate) fn all_to(&self, peer: &PublicKey) -> Vec<(PublicKey, ConnectionId)> {
        self.table().of(peer).map(|(id, _)| (*peer, id)).collect()
    }

    /// The connections to a peer that are used before this one.
    #[cfg(feature = "scraper")]
    pub(crate) fn before(&self, peer: &PublicKey, link: LinkId) -> Vec<(PublicKey, ConnectionId)> {
        let table = self.table();
        let ids = table.of(peer).map(|(id, _)| id);
        ids.take_while(|id| *id != link.0).map(|id| (*peer, id)).collect()
    }

    fn select(&self, wanted: impl Fn(&Table, &Connection) -> bool) -> Vec<ConnectionId> {
        let table = self.table();
        table.listed().filter(|(_, connection)| wanted(&table, connection)).map(|(id, _)| id).collect()
    }

    /// True if one of the connections to a peer goes through a relay.
    #[cfg(all(test, feature = "cli"))]
    pub(crate) fn is_relayed_too(&self, peer: &PublicKey) -> bool {
        self.table().of(peer).any(|(_, connection)| !connection.is_direct())
    }

    /// Adds a connection without a swarm, over QUIC to `192.0.2.7:19961`.
    #[cfg(test)]
    pub(crate) fn add_test_link(&self, peer: PublicKey, path: LinkPath) -> ConnectionId {
        let id = ConnectionId::new_unchecked(self.table().connections.len());
        self.add(id, Connection::without_swarm(peer, path));
        id
    }

    fn has_changed(&self) {
        self.0.changes.send_modify(|generation| *generation += 1);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
