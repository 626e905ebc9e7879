//! The table of links: who is connected, by which connections, and the way to open a stream to them.
//!
//! Written by the stream behaviour inside the swarm task, read by everybody. The mutex is held for a few map
//! operations, never over an `.await`.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use libp2p::{Multiaddr, StreamProtocol, swarm::ConnectionId};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    peer_id,
    stream::{LinkId, LinkStream},
};
use crate::identity::PublicKey;

/// How the bytes of a link travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinkPath {
    /// Peer to peer.
    Direct,
    /// Through a relay, which sees only ciphertext.
    Relayed,
}

impl LinkPath {
    /// `direct` or `relayed`, as it stands in labels and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}

/// How many peers are linked, each counted once, by its best path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Peers with a direct link.
    pub direct: usize,
    /// Peers with a relayed link only.
    pub relayed: usize,
}

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

pub(super) struct OpenRequest {
    pub(super) protocol: StreamProtocol,
    pub(super) reply: oneshot::Sender<Result<libp2p::Stream, OpenError>>,
}

/// One libp2p connection.
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) remote: Multiaddr,
    pub(super) open: mpsc::Sender<OpenRequest>,
    /// Cancelled when the connection is given up; its streams then end.
    pub(super) gone: CancellationToken,
}

impl Connection {
    fn path(&self) -> LinkPath {
        if peer_id::is_relayed(&self.remote) { LinkPath::Relayed } else { LinkPath::Direct }
    }

    /// Lower is better: direct before relayed, TCP before QUIC (half the memory, two thirds of the CPU).
    fn rank(&self) -> (LinkPath, bool) {
        (self.path(), !peer_id::is_tcp(&self.remote))
    }
}

#[derive(Default)]
struct Peer {
    /// Best first.
    connections: Vec<Connection>,
    /// Read by the handlers: whether an idle connection to this peer stays open.
    kept: Arc<AtomicBool>,
    lost_at: Option<Instant>,
    /// Kept for good: a node.
    always: bool,
}

struct Shared {
    peers: Mutex<HashMap<PublicKey, Peer>>,
    changes: watch::Sender<u64>,
    events: broadcast::Sender<LinkEvent>,
}

/// The table of links. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Links(Arc<Shared>);

impl Links {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            peers: Mutex::default(),
            changes: watch::Sender::new(0),
            events: broadcast::Sender::new(EVENTS_KEPT),
        }))
    }

    /// The best path to a peer, if there is a link.
    pub(crate) fn path(&self, peer: &PublicKey) -> Option<LinkPath> {
        self.peers().get(peer)?.connections.first().map(Connection::path)
    }

    /// The best connection to a peer.
    pub(crate) fn best(&self, peer: &PublicKey) -> Option<LinkId> {
        self.peers().get(peer)?.connections.first().map(|connection| LinkId(connection.id))
    }

    /// The remote address of the best connection to a peer.
    pub(super) fn remote(&self, peer: &PublicKey) -> Option<Multiaddr> {
        self.peers().get(peer)?.connections.first().map(|connection| connection.remote.clone())
    }

    /// How many peers are linked.
    pub(crate) fn counts(&self) -> LinkCounts {
        let mut counts = LinkCounts::default();
        for best in self.peers().values().filter_map(|peer| peer.connections.first()) {
            match best.path() {
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

    pub(super) async fn wait_until(&self, mut holds: impl FnMut() -> bool) {
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
        let (open, id, gone) = {
            let peers = self.peers();
            let best = peers.get(peer).and_then(|peer| peer.connections.first()).ok_or(OpenError::NotConnected)?;
            (best.open.clone(), best.id, best.gone.clone())
        };
        open.try_send(OpenRequest { protocol, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => OpenError::Busy,
            mpsc::error::TrySendError::Closed(_) => OpenError::Lost,
        })?;
        match time::timeout(OPEN_TIMEOUT, opened).await {
            Ok(Ok(stream)) => stream.map(|stream| LinkStream::new(stream, id, gone)),
            Ok(Err(_)) => Err(OpenError::Lost),
            Err(_) => Err(OpenError::Timeout),
        }
    }

    pub(super) fn kept_flag(&self, peer: PublicKey) -> Arc<AtomicBool> {
        Arc::clone(&self.peers().entry(peer).or_default().kept)
    }

    pub(super) fn add(&self, peer: PublicKey, connection: Connection) {
        let first = {
            let mut peers = self.peers();
            let entry = peers.entry(peer).or_default();
            entry.lost_at = None;
            // Of equals the newest first: a peer that comes back after a crash or with a new address may have left a
            // connection behind whose death nothing has told us yet.
            let at = entry.connections.partition_point(|other| other.rank() < connection.rank());
            entry.connections.insert(at, connection);
            entry.connections.len() == 1
        };
        self.0.changes.send_modify(|generation| *generation += 1);
        if first {
            let _ = self.0.events.send(LinkEvent::Up(peer));
        }
    }

    pub(super) fn remove(&self, peer: PublicKey, id: ConnectionId) {
        let last = {
            let mut peers = self.peers();
            let Some(entry) = peers.get_mut(&peer) else { return };
            let before = entry.connections.len();
            for gone in entry.connections.extract_if(.., |connection| connection.id == id) {
                gone.gone.cancel();
            }
            let last = entry.connections.is_empty();
            if last && before > 0 {
                entry.lost_at = Some(Instant::now());
            }
            if last && !entry.kept.load(Ordering::Relaxed) {
                peers.remove(&peer);
            }
            last && before > 0
        };
        self.0.changes.send_modify(|generation| *generation += 1);
        if last {
            let _ = self.0.events.send(LinkEvent::Down(peer));
        }
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<PublicKey, Peer>> {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A receiver that falls behind by more is told so, and reads the table instead.
const EVENTS_KEPT: usize = 1024;

/// A stream costs two round trips; a peer that takes longer is not answering.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests to open streams that may wait for a connection's handler.
pub(super) const OPEN_QUEUE: usize = 256;
