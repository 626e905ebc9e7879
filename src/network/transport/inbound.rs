//! Counts of the connections that others open.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::telemetry::Limit;

/// Connections that others open, since the start.
#[cfg(any(feature = "scraper", feature = "node"))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InboundCounts {
    pub(crate) handshakes: usize,
    pub(crate) handshakes_peak: usize,
    /// Ended to make room for others, in their handshake or before a secret was proved.
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
    refused_address: AtomicU64,
    refused_connections: AtomicU64,
    #[cfg(any(feature = "scraper", feature = "node"))]
    refused_memory: AtomicU64,
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

    /// Counts an established connection that made room for a newcomer.
    pub(crate) fn evicted(&self) {
        self.evicted.fetch_add(1, Relaxed);
    }

    /// Counts a connection that found no room among the established ones.
    pub(crate) fn refused(&self, limit: Limit) {
        let of_address = matches!(limit, Limit::ConnectionsPerIp | Limit::ConnectionsPerPrivateIp);
        let counter = if of_address { &self.refused_address } else { &self.refused_connections };
        counter.fetch_add(1, Relaxed);
    }

    #[cfg(any(feature = "scraper", feature = "node"))]
    pub(crate) fn refused_memory(&self) {
        self.refused_memory.fetch_add(1, Relaxed);
    }
}
