//! Metrics of the connections that others open, at a scraper or a node.

use std::sync::atomic::Ordering;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::limits::InboundCounts;
use crate::telemetry::{Label, gauge};

/// The metrics of [`InboundCounts`].
#[derive(Debug)]
pub(crate) struct InboundMetrics {
    handshakes: Gauge,
    handshakes_peak: Gauge,
    refused_handshakes: Counter,
    refused_address: Counter,
    refused_connections: Counter,
    refused_memory: Counter,
}

impl InboundMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let refused = Family::<Label, Counter>::default();
        registry.register("connections_refused", "Connections of peers that were refused", refused.clone());
        Self {
            handshakes: gauge(registry, "handshakes_in_flight", "Connections of peers in their handshake now"),
            handshakes_peak: gauge(
                registry,
                "handshakes_in_flight_peak",
                "Most connections in their handshake at once since the start",
            ),
            refused_handshakes: refused.get_or_create_owned(&[("reason", "handshakes")]),
            refused_address: refused.get_or_create_owned(&[("reason", "address")]),
            refused_connections: refused.get_or_create_owned(&[("reason", "connections")]),
            refused_memory: refused.get_or_create_owned(&[("reason", "memory")]),
        }
    }

    pub(crate) fn set(&self, counts: InboundCounts) {
        let set = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.handshakes, counts.handshakes);
        set(&self.handshakes_peak, counts.handshakes_peak);
        // Of two concurrent requests one may hold older counts; a counter never goes back.
        let raise = |counter: &Counter, value: u64| counter.inner().fetch_max(value, Ordering::Relaxed);
        raise(&self.refused_handshakes, counts.refused_handshakes);
        raise(&self.refused_address, counts.refused_address);
        raise(&self.refused_connections, counts.refused_connections);
        raise(&self.refused_memory, counts.refused_memory);
    }
}
