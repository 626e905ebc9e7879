//! The status of a link, as others see it: its path, its transport, its last change.

#[cfg(feature = "scraper")]
use std::time::{Duration, SystemTime};

/// How the bytes of a link travel. The order of the variants is the rank of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LinkPath {
    /// Peer to peer.
    Direct,
    /// Through a relay, which sees only ciphertext.
    Relayed,
}

impl LinkPath {
    /// `direct` or `relayed`, as in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}

/// The transport to the peer, or to the relay. The order of the variants is the rank of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LinkTransport {
    /// TCP, Noise, yamux.
    Tcp,
    /// QUIC version 1.
    Quic,
    /// WebSocket, with or without TLS; Noise, yamux.
    WebSocket,
}

impl LinkTransport {
    /// Every one.
    #[cfg(feature = "node")]
    pub(crate) const ALL: [Self; 3] = [Self::Tcp, Self::Quic, Self::WebSocket];

    /// `tcp`, `quic` or `ws`, as in labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::WebSocket => "ws",
        }
    }
}

/// What is known of the way to a peer.
#[cfg(feature = "scraper")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkStatus {
    /// The best path; none without a link.
    pub(crate) path: Option<LinkPath>,
    /// What it travels in.
    pub(crate) transport: Option<LinkTransport>,
    /// The other end's `host:port`: the peer's, or the relay's.
    pub(crate) address: Option<String>,
    /// The last round trip that was measured over it.
    pub(crate) rtt: Option<Duration>,
    /// How often a relayed link became direct.
    pub(crate) punches_succeeded: u32,
    /// Hole punches that were given up.
    pub(crate) punches_failed: u32,
    /// The last change of the path.
    pub(crate) change: Option<LinkChange>,
}

/// A change of the path to a peer.
#[cfg(feature = "scraper")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkChange {
    /// When it was noticed.
    pub(crate) at: SystemTime,
    /// One line: what happened.
    pub(crate) reason: String,
}

/// How all peers are linked, each counted once, by its best path; and what became of hole punches since the start.
#[cfg(any(feature = "scraper", feature = "node"))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkCounts {
    /// Peers with a direct link.
    pub(crate) direct: usize,
    /// Peers with a relayed link only.
    pub(crate) relayed: usize,
    /// Relays that we can be reached through.
    pub(crate) relays: usize,
    /// Relayed links that became direct.
    pub(crate) punches_succeeded: u64,
    /// Hole punches that were given up.
    pub(crate) punches_failed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_ranks_before_relayed_and_tcp_before_quic_before_websocket() {
        assert!(LinkPath::Direct < LinkPath::Relayed);
        assert!(LinkTransport::Tcp < LinkTransport::Quic && LinkTransport::Quic < LinkTransport::WebSocket);
    }
}
