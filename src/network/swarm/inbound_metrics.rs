//! Metrics of the connections that others open, at a scraper or a node.

use prometheus_client::registry::Registry;

use crate::{network::transport::inbound::InboundCounts, telemetry::Readings};

/// The metrics of [`InboundCounts`].
pub(crate) fn inbound_metrics(r: &mut Registry) -> Readings<InboundCounts> {
    let mut inbound = Readings::<InboundCounts>::new();
    inbound.counters(
        r,
        ("connections_refused", "Connections of peers that were refused", "reason"),
        &[
            ("evicted", |counts| counts.evicted),
            ("handshakes", |counts| counts.refused_handshakes),
            ("address", |counts| counts.refused_address),
            ("connections", |counts| counts.refused_connections),
            ("memory", |counts| counts.refused_memory),
        ],
    );
    inbound.gauge(r, "handshakes_in_flight", "Connections of peers in their handshake now", |counts| {
        counts.handshakes as u64
    });
    let peak = "Most connections in their handshake at once since the start";
    inbound.gauge(r, "handshakes_in_flight_peak", peak, |counts| counts.handshakes_peak as u64);
    inbound
}
