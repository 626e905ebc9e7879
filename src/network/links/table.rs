//! The table of links: who is connected, by which connections, and the way to open a stream to them.
//!
//! Written by the stream behaviour inside the swarm task, read by everybody. The mutex is held for a few map
//! operations, never over an `.await`.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use libp2p::{Multiaddr, StreamProtocol, swarm::ConnectionId};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    identity::PublicKey,
    network::{
        links::{
            status::{LinkChange, LinkCounts, LinkPath, LinkStatus, LinkTransport},
            stream::{LinkId, LinkStream},
        },
        peer_id::{self, Circuit},
    },
};

/// A change of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkEvent {
    /// The first connection to a peer is there.
    Up(PublicKey),
    /// The last connection to a peer is gone.
    Down(PublicKey),
}

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("not connected")]
    NotConnected,
    #[error("the link was lost")]
    Lost,
    #[error("too many streams are being opened")]
    Busy,
    #[error("the peer does not speak {0}")]
    Unsupported(StreamProtocol),
    #[error("the stream did not open in time")]
    Timeout,
    #[error("the stream failed: {0}")]
    Io(std::io::Error),
}

pub(crate) struct OpenRequest {
    pub(crate) protocol: StreamProtocol,
    pub(crate) reply: oneshot::Sender<Result<libp2p::Stream, OpenError>>,
}

/// One libp2p connection.
pub(crate) struct Connection {
    id: ConnectionId,
    path: LinkPath,
    /// Of the other end: the peer, or the relay.
    address: Multiaddr,
    control: Control,
    rtt: Option<Duration>,
    /// The peer has told how it sees us over it.
    identified: bool,
    since: Instant,
    /// Since when there has been a better one.
    superseded_at: Option<Instant>,
}

/// What the handler of a connection shares with the table.
#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) open: mpsc::Sender<OpenRequest>,
    /// Cancelled when the connection is given up; its streams then end.
    pub(crate) gone: CancellationToken,
    /// Held by every stream over it.
    pub(crate) streams: Arc<()>,
}

impl Connection {
    pub(crate) fn new(id: ConnectionId, path: LinkPath, address: Multiaddr, control: Control) -> Self {
        Self { id, path, address, control, rtt: None, identified: false, since: Instant::now(), superseded_at: None }
    }

    /// Lower is better: direct before relayed, TCP before QUIC (half the memory, two thirds of the CPU), WebSocket last
    /// (frames around what TCP carries as well). Of a circuit each end knows only its own half.
    fn rank(&self) -> (LinkPath, Option<LinkTransport>) {
        (self.path, (self.path == LinkPath::Direct).then(|| self.transport()))
    }

    fn transport(&self) -> LinkTransport {
        LinkTransport::of(&self.address)
    }

    fn told(&self) -> String {
        let way = match self.path {
            LinkPath::Direct => "to",
            LinkPath::Relayed => "through the relay at",
        };
        format!("{way} {}", peer_id::shown(&self.address))
    }
}

impl Peer {
    fn path(&self) -> Option<LinkPath> {
        self.connections.first().map(|best| best.path)
    }

    fn direct(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(|connection| connection.path == LinkPath::Direct)
    }

    /// Changes the connections, and keeps in mind why if that changes the path.
    fn change<T>(&mut self, reason: String, change: impl FnOnce(&mut Vec<Connection>) -> T) -> T {
        let before = self.path();
        let done = change(&mut self.connections);
        if self.path() != before {
            self.change = Some(LinkChange { at: SystemTime::now(), reason });
        }
        self.mark_superseded();
        done
    }

    /// A relayed connection has nothing more to do while there is a direct one, or a circuit that is clearly newer. (Of
    /// two direct ones, or of two circuits made together, both stay: the two ends may not agree on which is the better,
    /// and would each close the other's.)
    fn mark_superseded(&mut self) {
        let Some((path, since)) = self.connections.first().map(|best| (best.path, best.since)) else { return };
        for connection in &mut self.connections {
            let better = path == LinkPath::Direct || since.duration_since(connection.since) > MADE_TOGETHER;
            let superseded = better && connection.path == LinkPath::Relayed;
            connection.superseded_at = superseded.then(|| connection.superseded_at.unwrap_or_else(Instant::now));
        }
    }
}

#[derive(Default)]
struct Peer {
    /// Best first.
    connections: Vec<Connection>,
    /// Read by the handlers: whether an idle connection to this peer stays open.
    kept: Arc<AtomicBool>,
    lost_at: Option<Instant>,
    change: Option<LinkChange>,
    punches_succeeded: u32,
    punches_failed: u32,
    /// Kept for good: a node.
    always: bool,
}

struct Shared {
    peers: Mutex<HashMap<PublicKey, Peer>>,
    changes: watch::Sender<u64>,
    identified: watch::Sender<()>,
    events: broadcast::Sender<LinkEvent>,
    /// How many relays we can be reached through.
    relays: watch::Sender<usize>,
    punches_succeeded: AtomicU64,
    punches_failed: AtomicU64,
}

/// The table of links. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Links(Arc<Shared>);

impl Links {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            peers: Mutex::default(),
            changes: watch::Sender::new(0),
            identified: watch::Sender::new(()),
            events: broadcast::Sender::new(EVENTS_KEPT),
            relays: watch::Sender::new(0),
            punches_succeeded: AtomicU64::new(0),
            punches_failed: AtomicU64::new(0),
        }))
    }

    /// The best path to a peer, if there is a link.
    pub(crate) fn path(&self, peer: &PublicKey) -> Option<LinkPath> {
        self.peers().get(peer)?.path()
    }

    /// The best connection to a peer.
    pub(crate) fn best(&self, peer: &PublicKey) -> Option<LinkId> {
        self.peers().get(peer)?.connections.first().map(|connection| LinkId(connection.id))
    }

    /// The other end's address of the best connection to a peer.
    pub(crate) fn address(&self, peer: &PublicKey) -> Option<Multiaddr> {
        self.peers().get(peer)?.connections.first().map(|connection| connection.address.clone())
    }

    /// What the direct connections to a peer travel in.
    pub(crate) fn transports(&self, peer: &PublicKey) -> Vec<LinkTransport> {
        let peers = self.peers();
        peers.get(peer).into_iter().flat_map(Peer::direct).map(Connection::transport).collect()
    }

    /// The direct connections to a peer.
    pub(crate) fn direct(&self, peer: &PublicKey) -> Vec<ConnectionId> {
        let peers = self.peers();
        peers.get(peer).into_iter().flat_map(Peer::direct).map(|connection| connection.id).collect()
    }

    /// The circuits that a relay carries.
    pub(crate) fn through(&self, relay: &PublicKey) -> Vec<(PublicKey, ConnectionId)> {
        let peers = self.peers();
        let all = peers.iter().flat_map(|(key, peer)| peer.connections.iter().map(|connection| (*key, connection)));
        let relayed = all.filter(|(_, connection)| connection.path == LinkPath::Relayed);
        let through = |one: &Connection| Circuit::parse(&one.address).is_some_and(|circuit| circuit.relay == *relay);
        relayed.filter(|(_, connection)| through(connection)).map(|(key, connection)| (key, connection.id)).collect()
    }

    /// Returns once the peer has told how it sees us over each direct connection to it.
    pub(crate) async fn identified(&self, peer: &PublicKey) {
        let all = || {
            let peers = self.peers();
            peers.get(peer).into_iter().flat_map(Peer::direct).all(|connection| connection.identified)
        };
        // `self` holds the sender.
        let _ = self.0.identified.subscribe().wait_for(|()| all()).await;
    }

    /// A peer told who it is, and how it sees us, over a connection.
    pub(crate) fn on_identified(&self, peer: &PublicKey, id: ConnectionId) {
        if self.update(peer, id, |connection| connection.identified = true).is_some() {
            self.0.identified.send_replace(());
        }
    }

    /// How many connections there are, by what they travel in.
    pub(crate) fn connections(&self) -> HashMap<LinkTransport, usize> {
        let mut connections = HashMap::new();
        for connection in self.peers().values().flat_map(|peer| &peer.connections) {
            *connections.entry(connection.transport()).or_default() += 1;
        }
        connections
    }

    /// What is known of the way to a peer.
    pub(crate) fn status(&self, peer: &PublicKey) -> LinkStatus {
        let peers = self.peers();
        let Some(peer) = peers.get(peer) else { return LinkStatus::default() };
        let best = peer.connections.first();
        LinkStatus {
            path: best.map(|best| best.path),
            transport: best.map(Connection::transport),
            address: best
                .and_then(|best| peer_id::shown_place(&best.address))
                .map(|place| place.host_port().to_string()),
            rtt: best.and_then(|best| best.rtt),
            punches_succeeded: peer.punches_succeeded,
            punches_failed: peer.punches_failed,
            change: peer.change.clone(),
        }
    }

    /// A round trip over a connection was measured.
    pub(crate) fn measured(&self, peer: &PublicKey, id: ConnectionId, rtt: Duration) {
        self.update(peer, id, |connection| connection.rtt = Some(rtt));
    }

    /// Connections that a better one has made superfluous a while ago, and whose last stream has ended. libp2p's hole
    /// punching would keep them open for ever.
    pub(crate) fn superfluous(&self) -> Vec<(PublicKey, ConnectionId)> {
        let peers = self.peers();
        let all = peers.iter().flat_map(|(key, peer)| peer.connections.iter().map(|connection| (*key, connection)));
        let over = |connection: &Connection| {
            connection.superseded_at.is_some_and(|at| at.elapsed() > SUPERSEDED_FOR)
                && Arc::strong_count(&connection.control.streams) <= HELD_BY_US
        };
        all.filter(|(_, connection)| over(connection)).map(|(key, connection)| (key, connection.id)).collect()
    }

    /// A hole punch was given up. Its other end may have succeeded.
    pub(crate) fn punch_failed(&self, peer: &PublicKey) {
        if let Some(peer) = self.peers().get_mut(peer)
            && peer.path() == Some(LinkPath::Relayed)
        {
            peer.punches_failed = peer.punches_failed.saturating_add(1);
            self.0.punches_failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many relays we can be reached through.
    pub(crate) fn relays(&self) -> &watch::Sender<usize> {
        &self.0.relays
    }

    /// How peers are linked.
    pub(crate) fn counts(&self) -> LinkCounts {
        let mut counts = LinkCounts {
            relays: *self.0.relays.borrow(),
            punches_succeeded: self.0.punches_succeeded.load(Ordering::Relaxed),
            punches_failed: self.0.punches_failed.load(Ordering::Relaxed),
            ..LinkCounts::default()
        };
        for best in self.peers().values().filter_map(|peer| peer.connections.first()) {
            match best.path {
                LinkPath::Direct => counts.direct += 1,
                LinkPath::Relayed => counts.relayed += 1,
            }
        }
        counts
    }

    /// Moves whenever a link comes, goes, or changes its path.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Links as they come and go.
    pub(crate) fn events(&self) -> broadcast::Receiver<LinkEvent> {
        self.0.events.subscribe()
    }

    /// How long ago the last link to a kept peer was lost; none if there is a link or there never was one.
    pub(crate) fn lost_for(&self, peer: &PublicKey) -> Option<Duration> {
        self.peers().get(peer)?.lost_at.map(|at| at.elapsed())
    }

    /// Returns once there is a link to the peer.
    pub(crate) async fn up(&self, peer: &PublicKey) {
        self.wait_until(|| self.path(peer).is_some()).await;
    }

    /// Returns once there is no link to the peer.
    pub(crate) async fn down(&self, peer: &PublicKey) {
        self.wait_until(|| self.path(peer).is_none()).await;
    }

    pub(crate) async fn wait_until(&self, mut holds: impl FnMut() -> bool) {
        // `self` holds a sender, so the wait does not end by the channel closing.
        let _ = self.changes().wait_for(|_| holds()).await;
    }

    /// Keeps connections to the peer open while idle.
    pub(crate) fn keep(&self, peer: PublicKey) {
        self.peers().entry(peer).or_default().kept.store(true, Ordering::Relaxed);
    }

    /// Keeps connections to a node open while idle.
    pub(crate) fn keep_node(&self, peer: PublicKey) {
        let mut peers = self.peers();
        let entry = peers.entry(peer).or_default();
        entry.always = true;
        entry.kept.store(true, Ordering::Relaxed);
    }

    /// Lets idle connections to the peer end.
    pub(crate) fn let_go(&self, peer: &PublicKey) {
        let mut peers = self.peers();
        if let Some(entry) = peers.get_mut(peer) {
            entry.kept.store(false, Ordering::Relaxed);
            entry.always = false;
            if entry.connections.is_empty() {
                peers.remove(peer);
            }
        }
    }

    /// True if connections to the peer stay open while idle.
    pub(crate) fn is_kept(&self, peer: &PublicKey) -> bool {
        self.peers().get(peer).is_some_and(|peer| peer.kept.load(Ordering::Relaxed))
    }

    /// The peers that are kept, nodes left out.
    pub(crate) fn kept(&self) -> HashSet<PublicKey> {
        let peers = self.peers();
        let kept = peers.iter().filter(|(_, peer)| !peer.always && peer.kept.load(Ordering::Relaxed));
        kept.map(|(key, _)| *key).collect()
    }

    /// Opens a stream over the best connection to the peer.
    pub(crate) async fn open(&self, peer: &PublicKey, protocol: StreamProtocol) -> Result<LinkStream, OpenError> {
        let (reply, opened) = oneshot::channel();
        let (id, control) = {
            let peers = self.peers();
            let best = peers.get(peer).and_then(|peer| peer.connections.first()).ok_or(OpenError::NotConnected)?;
            (best.id, best.control.clone())
        };
        control.open.try_send(OpenRequest { protocol, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => OpenError::Busy,
            mpsc::error::TrySendError::Closed(_) => OpenError::Lost,
        })?;
        match time::timeout(OPEN_TIMEOUT, opened).await {
            Ok(Ok(stream)) => stream.map(|stream| LinkStream::new(stream, id, &control)),
            Ok(Err(_)) => Err(OpenError::Lost),
            Err(_) => Err(OpenError::Timeout),
        }
    }

    pub(crate) fn kept_flag(&self, peer: PublicKey) -> Arc<AtomicBool> {
        Arc::clone(&self.peers().entry(peer).or_default().kept)
    }

    pub(crate) fn add(&self, peer: PublicKey, connection: Connection) {
        let first = {
            let mut peers = self.peers();
            let entry = peers.entry(peer).or_default();
            let reason = format!("connected {}", connection.told());
            entry.lost_at = None;
            // Of equals the newest first: a peer that comes back after a crash or with a new address may have left a
            // connection behind whose death nothing has told us yet.
            let at = entry.connections.partition_point(|other| other.rank() < connection.rank());
            let before = entry.path();
            entry.change(reason, |connections| connections.insert(at, connection));
            if (before, entry.path()) == (Some(LinkPath::Relayed), Some(LinkPath::Direct)) {
                entry.punches_succeeded = entry.punches_succeeded.saturating_add(1);
                self.0.punches_succeeded.fetch_add(1, Ordering::Relaxed);
            }
            entry.connections.len() == 1
        };
        self.moved();
        if first {
            let _ = self.0.events.send(LinkEvent::Up(peer));
        }
    }

    /// Forgets a connection, if it is still there; its streams end.
    pub(crate) fn remove(&self, peer: PublicKey, id: ConnectionId, reason: &str) {
        let last = {
            let mut peers = self.peers();
            let Some(entry) = peers.get_mut(&peer) else { return };
            let Some(at) = entry.connections.iter().position(|connection| connection.id == id) else { return };
            let reason = format!("lost the connection {}: {reason}", entry.connections[at].told());
            let gone = entry.change(reason, |connections| connections.remove(at));
            gone.control.gone.cancel();
            let last = entry.connections.is_empty();
            if last {
                entry.lost_at = Some(Instant::now());
            }
            if last && !entry.kept.load(Ordering::Relaxed) {
                peers.remove(&peer);
            }
            last
        };
        self.moved();
        if last {
            let _ = self.0.events.send(LinkEvent::Down(peer));
        }
    }

    /// True if one of the connections to a peer goes through a relay.
    #[cfg(test)]
    pub(crate) fn is_relayed_too(&self, peer: &PublicKey) -> bool {
        let peers = self.peers();
        peers.get(peer).is_some_and(|peer| peer.connections.iter().any(|one| one.path == LinkPath::Relayed))
    }

    /// Adds a connection without a swarm, over QUIC to `192.0.2.7:19961` with a round trip of 25 ms.
    #[cfg(test)]
    pub(crate) fn add_test_link(&self, peer: PublicKey, path: LinkPath) {
        let (open, _) = mpsc::channel(1);
        let control = Control { open, gone: CancellationToken::new(), streams: Arc::new(()) };
        let (id, address) = (ConnectionId::new_unchecked(0), "/ip4/192.0.2.7/udp/19961/quic-v1".parse());
        self.add(peer, Connection::new(id, path, address.expect("an address"), control));
        self.measured(&peer, id, Duration::from_millis(25));
    }

    fn update<T>(&self, peer: &PublicKey, id: ConnectionId, change: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let mut peers = self.peers();
        peers.get_mut(peer)?.connections.iter_mut().find(|connection| connection.id == id).map(change)
    }

    fn moved(&self) {
        self.0.changes.send_modify(|generation| *generation += 1);
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<PublicKey, Peer>> {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time for whoever is about to open a stream to notice the better path.
const SUPERSEDED_FOR: Duration = Duration::from_secs(5);

/// Circuits through several relays are dialled one a moment after the other.
const MADE_TOGETHER: Duration = Duration::from_secs(10);

/// By the table, and by the connection's handler.
const HELD_BY_US: usize = 2;

/// A receiver that falls behind by more is told so, and reads the table instead.
const EVENTS_KEPT: usize = 1024;

/// A stream costs two round trips; a peer that takes longer is not answering.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests to open streams that may wait for a connection's handler.
pub(crate) const OPEN_QUEUE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    fn connect(links: &Links, peer: PublicKey, id: usize, path: LinkPath) -> ConnectionId {
        let (open, _) = mpsc::channel(1);
        let control = Control { open, gone: CancellationToken::new(), streams: Arc::new(()) };
        let (id, address) = (ConnectionId::new_unchecked(id), "/ip4/192.0.2.1/tcp/1".parse().expect("an address"));
        links.add(peer, Connection::new(id, path, address, control));
        id
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_circuit_takes_over_and_one_of_the_same_moment_stays() {
        let (links, peer) = (Links::new(), KeyPair::generate().public());
        let first = connect(&links, peer, 1, LinkPath::Relayed);
        time::advance(Duration::from_secs(1)).await;
        let second = connect(&links, peer, 2, LinkPath::Relayed);
        time::advance(Duration::from_secs(60)).await;
        assert_eq!(links.superfluous(), [], "made together");

        let third = connect(&links, peer, 3, LinkPath::Relayed);
        assert_eq!(links.best(&peer), Some(LinkId(third)));
        time::advance(SUPERSEDED_FOR * 2).await;
        let older = [second, first].map(|id| (peer, id));
        assert_eq!(links.superfluous(), older);

        links.remove(peer, third, "a test");
        assert_eq!(links.best(&peer), Some(LinkId(second)));
        assert_eq!(links.superfluous(), [], "they are needed again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_direct_connection_takes_over_and_is_never_superfluous() {
        let (links, peer) = (Links::new(), KeyPair::generate().public());
        let direct = [1, 2].map(|id| connect(&links, peer, id, LinkPath::Direct));
        let relayed = connect(&links, peer, 3, LinkPath::Relayed);
        time::advance(Duration::from_secs(60)).await;
        let other = connect(&links, peer, 4, LinkPath::Direct);
        assert_eq!(links.superfluous(), [(peer, relayed)]);
        assert_eq!(links.direct(&peer), [other, direct[1], direct[0]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_has_identified_itself_once_it_did_over_each_direct_connection() {
        let (links, peer) = (Links::new(), KeyPair::generate().public());
        connect(&links, peer, 1, LinkPath::Relayed);
        let direct = [2, 3].map(|id| connect(&links, peer, id, LinkPath::Direct));
        links.on_identified(&peer, direct[0]);
        assert!(time::timeout(Duration::from_secs(5), links.identified(&peer)).await.is_err());
        links.on_identified(&peer, direct[1]);
        links.identified(&peer).await;
    }
}
