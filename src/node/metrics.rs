//! A node's own metrics, `narthex_*`.
//!
//! The network counts; a request for the metrics reads the counts.

use std::collections::HashMap;

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{
    network::{InboundCounts, LinkTransport, NodeCounts, inbound_metrics},
    telemetry::{ExpositionFormat, Label, Readings, Refusals, build_info, dropped_lines, gauge, process},
};

/// What a node holds and has done, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeState {
    pub(super) peers: usize,
    /// Connections, by what they travel in.
    pub(super) connections: HashMap<LinkTransport, usize>,
    pub(super) inbound: InboundCounts,
    /// What the node has done for others.
    pub(super) counts: NodeCounts,
}

#[derive(Debug)]
pub(super) struct NodeMetrics {
    registry: Registry,
    peers: Gauge,
    connections: [(LinkTransport, Gauge); LinkTransport::ALL.len()],
    inbound: Readings<InboundCounts>,
    counts: Readings<NodeCounts>,
}

impl NodeMetrics {
    /// Every metric at 0.
    pub(super) fn new(refusals: &Refusals) -> Self {
        let mut registry = Registry::default();
        process::register(&mut registry);
        let narthex = registry.sub_registry_with_prefix("narthex");
        build_info(narthex);
        refusals.register(narthex);
        dropped_lines::register(narthex);
        let connections = Family::<Label, Gauge>::default();
        narthex.register("connections", "Connections, by transport", connections.clone());
        let by_transport =
            LinkTransport::ALL.map(|one| (one, connections.get_or_create_owned(&[("transport", one.as_str())])));
        Self {
            peers: gauge(narthex, "peers", "Linked peers"),
            connections: by_transport,
            inbound: inbound_metrics(narthex),
            counts: count_metrics(narthex),
            registry,
        }
    }

    /// Everything, in the format asked for.
    pub(super) fn encode(&self, state: &NodeState, format: ExpositionFormat) -> String {
        let NodeState { peers, connections, inbound, counts } = state;
        let set = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.peers, *peers);
        for (transport, gauge) in &self.connections {
            set(gauge, connections.get(transport).copied().unwrap_or(0));
        }
        self.inbound.show(inbound);
        self.counts.show(counts);
        format.encode(&self.registry)
    }
}

/// The metrics of [`NodeCounts`].
fn count_metrics(r: &mut Registry) -> Readings<NodeCounts> {
    let mut counts = Readings::<NodeCounts>::new();
    counts.gauge(r, "dht_records", "Announcements held", |counts| counts.records);
    counts.gauge(r, "relay_reservations", "Peers that can be reached through this node", |counts| counts.reservations);
    counts.gauge(r, "relay_circuits", "Circuits open", |counts| counts.circuits);
    let stored = "Announcements taken, renewals among them";
    counts.counter(r, "dht_records_stored", stored, |counts| counts.records_stored);
    let displaced = "Announcements forgotten to make room for another";
    counts.counter(r, "dht_records_displaced", displaced, |counts| counts.records_displaced);
    counts.counters(
        r,
        ("dht_records_refused", "Announcements refused", "reason"),
        &[
            ("not_owner", |counts| counts.records_refused.not_owner),
            ("signature", |counts| counts.records_refused.signature),
            ("malformed", |counts| counts.records_refused.malformed),
            ("stale", |counts| counts.records_refused.stale),
            ("full", |counts| counts.records_refused.full),
        ],
    );
    counts.counters(
        r,
        ("dht_lookups", "Look-ups answered: with an announcement, or with nodes that may have it", "outcome"),
        &[("found", |counts| counts.lookups_found), ("missed", |counts| counts.lookups_missed)],
    );
    counts.counters(
        r,
        ("relay_reservation_requests", "Requests to be reachable through this node", "outcome"),
        &[("granted", |counts| counts.reservations_granted), ("refused", |counts| counts.reservations_refused)],
    );
    counts.counters(
        r,
        ("relay_circuit_requests", "Requests for a circuit", "outcome"),
        &[
            ("built", |counts| counts.circuits_built),
            ("limit", |counts| counts.circuits_refused.limit),
            ("no_reservation", |counts| counts.circuits_refused.no_reservation),
            ("no_room", |counts| counts.circuits_refused.no_room),
            ("unreachable", |counts| counts.circuits_refused.unreachable),
            ("malformed", |counts| counts.circuits_refused.malformed),
        ],
    );
    counts.counters(
        r,
        ("relay_circuits_ended", "Circuits that have ended", "reason"),
        &[
            ("closed", |counts| counts.circuits_ended.closed),
            ("bytes", |counts| counts.circuits_ended.bytes),
            ("duration", |counts| counts.circuits_ended.duration),
        ],
    );
    counts.counters(
        r,
        ("dial_backs", "Requests of peers to be dialled back, to learn whether they can be reached", "outcome"),
        &[
            ("answered", |counts| counts.dial_backs),
            ("failed", |counts| counts.dial_backs_failed),
            ("refused", |counts| counts.dial_backs_refused),
        ],
    );
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{CircuitEnds, CircuitRefusals, RecordRefusals};

    fn text_of(state: &NodeState, format: ExpositionFormat) -> String {
        NodeMetrics::new(&Refusals::new()).encode(state, format)
    }

    #[test]
    fn every_child_is_exported_before_anything_happened() {
        let text = text_of(&NodeState::default(), ExpositionFormat::OpenMetrics);
        for line in [
            "narthex_connections{transport=\"quic\"} 0",
            "narthex_dht_records_refused_total{reason=\"stale\"} 0",
            "narthex_dht_lookups_total{outcome=\"found\"} 0",
            "narthex_relay_circuit_requests_total{outcome=\"limit\"} 0",
            "narthex_dial_backs_total{outcome=\"answered\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(
            text.contains("narthex_build_info{version=")
                && text.contains("\nprocess_cpu_seconds_total ")
                && text.ends_with("# EOF\n")
        );
    }

    #[test]
    fn each_count_has_its_own_series() {
        let counts = NodeCounts {
            records: 1,
            records_stored: 2,
            records_displaced: 3,
            records_refused: RecordRefusals { not_owner: 4, signature: 5, malformed: 6, stale: 7, full: 8 },
            lookups_found: 9,
            lookups_missed: 10,
            reservations: 11,
            reservations_granted: 12,
            reservations_refused: 13,
            circuits: 14,
            circuits_built: 15,
            circuits_refused: CircuitRefusals {
                limit: 16,
                no_reservation: 17,
                unreachable: 18,
                malformed: 19,
                no_room: 30,
            },
            circuits_ended: CircuitEnds { closed: 20, bytes: 21, duration: 22 },
            dial_backs: 23,
            dial_backs_failed: 24,
            dial_backs_refused: 29,
        };
        let connections = [(LinkTransport::Tcp, 26), (LinkTransport::Quic, 27)].into();
        let inbound = InboundCounts { refused_address: 28, ..InboundCounts::default() };
        let text = text_of(&NodeState { peers: 25, connections, inbound, counts }, ExpositionFormat::Text);
        for line in [
            "narthex_dht_records 1",
            "narthex_dht_records_stored_total 2",
            "narthex_dht_records_displaced_total 3",
            "narthex_dht_records_refused_total{reason=\"not_owner\"} 4",
            "narthex_dht_records_refused_total{reason=\"signature\"} 5",
            "narthex_dht_records_refused_total{reason=\"malformed\"} 6",
            "narthex_dht_records_refused_total{reason=\"stale\"} 7",
            "narthex_dht_records_refused_total{reason=\"full\"} 8",
            "narthex_dht_lookups_total{outcome=\"found\"} 9",
            "narthex_dht_lookups_total{outcome=\"missed\"} 10",
            "narthex_relay_reservations 11",
            "narthex_relay_reservation_requests_total{outcome=\"granted\"} 12",
            "narthex_relay_reservation_requests_total{outcome=\"refused\"} 13",
            "narthex_relay_circuits 14",
            "narthex_relay_circuit_requests_total{outcome=\"built\"} 15",
            "narthex_relay_circuit_requests_total{outcome=\"limit\"} 16",
            "narthex_relay_circuit_requests_total{outcome=\"no_reservation\"} 17",
            "narthex_relay_circuit_requests_total{outcome=\"no_room\"} 30",
            "narthex_relay_circuit_requests_total{outcome=\"unreachable\"} 18",
            "narthex_relay_circuit_requests_total{outcome=\"malformed\"} 19",
            "narthex_relay_circuits_ended_total{reason=\"closed\"} 20",
            "narthex_relay_circuits_ended_total{reason=\"bytes\"} 21",
            "narthex_relay_circuits_ended_total{reason=\"duration\"} 22",
            "narthex_dial_backs_total{outcome=\"answered\"} 23",
            "narthex_dial_backs_total{outcome=\"failed\"} 24",
            "narthex_dial_backs_total{outcome=\"refused\"} 29",
            "narthex_peers 25",
            "narthex_connections{transport=\"tcp\"} 26",
            "narthex_connections{transport=\"quic\"} 27",
            "narthex_connections_refused_total{reason=\"address\"} 28",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
