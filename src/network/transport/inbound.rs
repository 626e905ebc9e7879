//! Counts of the connections that others open.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Connections that others open, since the start.
#[cfg(any(feature = "scraper", feature = "node"))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InboundCounts {
    pub(crate) handshakes: usize,
    pub(crate) handshakes_peak: usize,
    /// Ended in their handshake, to make room for others.
    pub(crate) evicted: u64,
    /// Refused because too many of their address were in their handshake.
    pub(crate) refused_handshakes: u64,
    /// Refused because their address has too many already.
    pub(crate) refused_address: u64,
    /// Refused because there are too many, or too many of that peer.
    pub(crate) refused_connections: u64,
    pub(crate) refused_memory: u64,
}

#[derive(Default)]
pub(crate) struct InboundCounters {
    handshakes: AtomicUsize,
    handshakes_peak: AtomicUsize,
    evicted: AtomicU64,
    refused_handshakes: AtomicU64,
    pub(crate) refused_address: AtomicU64,
    pub(crate) refused_connections: AtomicU64,
    #[cfg(any(feature = "scraper", feature = "node"))]
    pub(crate) refused_memory: AtomicU64,
}

impl InboundCounters {
    #[cfg(any(feature = "scraper", feature = "node"))]
    pub(crate) fn read(&self) -> InboundCounts {
        InboundCounts {
            handshakes: self.handshakes.load(Relaxed),
            handshakes_peak: self.handshakes_peak.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
            refused_handshakes: self.refused_handshakes.load(Relaxed),
            refused_address: self.refused_address.load(Relaxed),
            refused_connections: self.refused_connections.load(Relaxed),
            refused_memory: self.refused_memory.load(Relaxed),
        }
    }

    pub(crate) fn set_handshakes(&self, count: usize) {
        self.handshakes.store(count, Relaxed);
        self.handshakes_peak.fetch_max(count, Relaxed);
    }

    /// Counts a half-open connection that made room for a newcomer, or a newcomer that found none.
    pub(crate) fn no_room(&self, evicted: bool) {
        let counter = if evicted { &self.evicted } else { &self.refused_handshakes };
        counter.fetch_add(1, Relaxed);
    }
}
