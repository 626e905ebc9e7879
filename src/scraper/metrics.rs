//! The scraper's own metrics, `narthex_*`.
//!
//! What the registry and the network count themselves is passed in as a [`ScraperState`] with each request.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::outcome::{
    BeaconOutcome, FileSdOutcome, ForwardOutcome, HandshakeFailure, RegistrationOutcome, ScrapeOutcome, SdOutcome,
};
use crate::{
    hook::RunOutcome,
    http::Denied,
    network::{InboundCounts, LinkCounts, inbound_metrics},
    registry::{Counts, Totals},
    telemetry::{
        Counters, ExpositionFormat, Label, Readings, Refusals, SCRAPE_BUCKETS, build_info, bytes, counter,
        dropped_lines, gauge, process,
    },
};

#[derive(Debug)]
pub(super) struct ScraperMetrics {
    registry: Registry,
    scrapes: Counters<ScrapeOutcome>,
    scrape_duration: Histogram,
    scrape_body: Counter,
    scrapes_in_flight: Gauge,
    sd_requests: Counters<SdOutcome>,
    file_sd_writes: Counters<FileSdOutcome>,
    on_change_runs: Counters<RunOutcome>,
    registrations: Counters<RegistrationOutcome>,
    registrations_in_flight: Gauge,
    /// A burst may be over before the next scrape.
    registrations_in_flight_peak: Gauge,
    duplicate_keys: Gauge,
    handshake_refusals: Counters<HandshakeFailure>,
    firewall_blocks: Counter,
    members_linked: Gauge,
    members_unlinked: Gauge,
    forwards: Counters<ForwardOutcome>,
    beacon_requests: Counters<BeaconOutcome>,
    http_denials: Counters<Denied>,
    #[cfg(feature = "nats")]
    lobby_nats_failing: Gauge,
    #[cfg(feature = "nats")]
    lobby_nats_hosts: Gauge,
    state: Readings<ScraperState>,
    inbound: Readings<InboundCounts>,
}

/// What the registry and the network count, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ScraperState {
    pub(super) loaded: bool,
    pub(super) store_failing: bool,
    pub(super) aliases: Counts,
    pub(super) table_bytes: u64,
    pub(super) totals: Totals,
    pub(super) links: LinkCounts,
    pub(super) inbound: InboundCounts,
    /// Nodes that hold our announcement.
    pub(super) holders: usize,
    /// Nodes that we were told of.
    pub(super) bootstrap: usize,
    /// Entries of the registration log since the start, and those that could not be written.
    pub(super) logged: u64,
    pub(super) unlogged: u64,
}

impl ScraperMetrics {
    /// Every metric at 0.
    pub(super) fn new(refusals: &Refusals) -> Self {
        let mut registry = Registry::default();
        process::register(&mut registry);

        let narthex = registry.sub_registry_with_prefix("narthex");
        build_info(narthex);
        refusals.register(narthex);
        dropped_lines::register(narthex);
        let scrape_duration = Histogram::new(SCRAPE_BUCKETS);
        narthex.register_with_unit(
            "scrape_duration",
            "Time from a scrape's request to the end of its exposition, of scrapes that were ok",
            Unit::Seconds,
            scrape_duration.clone(),
        );
        let scrape_body =
            bytes(narthex, "scrape_body", "Bytes of expositions handed on, as they came (often compressed)");
        let members = Family::<Label, Gauge>::default();
        narthex.register("group_members", "Other scrapers of the group", members.clone());
        let members = |linked| members.get_or_create_owned(&[("linked", linked)]);
        Self {
            members_linked: members("true"),
            members_unlinked: members("false"),
            forwards: Counters::new(
                narthex,
                "group_forwards",
                "Scrapes of aliases without a link, as the other scrapers of the group answered them",
                "outcome",
            ),
            scrapes: Counters::new(narthex, "scrapes", "Scrapes through this scraper", "outcome"),
            scrape_duration,
            scrape_body,
            scrapes_in_flight: gauge(narthex, "scrapes_in_flight", "Scrapes being answered now"),
            sd_requests: Counters::new(narthex, "sd_requests", "Requests for the http_sd list", "outcome"),
            on_change_runs: Counters::new(
                narthex,
                "on_change_runs",
                "Runs of the command that gets each new list",
                "outcome",
            ),
            file_sd_writes: Counters::new(narthex, "file_sd_writes", "Writes of the file_sd file", "outcome"),
            registrations: Counters::new(
                narthex,
                "registrations",
                "Claims to an alias; slow_down, unavailable, malformed, released, probed, group and key_in_use count whole messages",
                "outcome",
            ),
            registrations_in_flight: gauge(narthex, "registrations_in_flight", "Register exchanges under way now"),
            registrations_in_flight_peak: gauge(
                narthex,
                "registrations_in_flight_peak",
                "Most register exchanges at once since the start",
            ),
            duplicate_keys: gauge(
                narthex,
                "duplicate_keys",
                "Keys of linked peers that another process registered with within 5 minutes, and was refused",
            ),
            handshake_refusals: Counters::new(
                narthex,
                "handshake_refusals",
                "Register handshakes that ended without a session",
                "reason",
            ),
            firewall_blocks: counter(narthex, "firewall_blocks", "Streams refused unread because of who opened them"),
            beacon_requests: Counters::new(
                narthex,
                "registration_api_requests",
                "Requests to the registration API",
                "outcome",
            ),
            http_denials: Counters::new(
                narthex,
                "http_denials",
                "HTTP requests that were not answered because of who sent them",
                "reason",
            ),
            #[cfg(feature = "nats")]
            lobby_nats_failing: gauge(
                narthex,
                "lobby_nats_failing",
                "1 while the NATS of lobbyd's hosts cannot be reached, so that they are listed as they were",
            ),
            #[cfg(feature = "nats")]
            lobby_nats_hosts: gauge(narthex, "lobby_nats_hosts", "Hosts that others say on the NATS of lobbyd's hosts"),
            state: state_metrics(narthex),
            inbound: inbound_metrics(narthex),
            registry,
        }
    }

    /// Begins the record of one scrape.
    pub(super) fn scrape(self: &Arc<Self>) -> ScrapeRecord {
        self.scrapes_in_flight.inc();
        ScrapeRecord { metrics: Arc::clone(self), started: Instant::now(), outcome: ScrapeOutcome::ClientGone }
    }

    pub(super) fn set_duplicate_keys(&self, count: usize) {
        self.duplicate_keys.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The other members of the group: how many are linked, and how many are not.
    pub(super) fn set_members(&self, linked: usize, unlinked: usize) {
        for (gauge, count) in [(&self.members_linked, linked), (&self.members_unlinked, unlinked)] {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Whether the NATS of lobbyd's hosts is away, and how many of them there are.
    #[cfg(feature = "nats")]
    pub(super) fn set_lobby_nats(&self, is_failing: bool, hosts: usize) {
        self.lobby_nats_failing.set(is_failing.into());
        self.lobby_nats_hosts.set(i64::try_from(hosts).unwrap_or(i64::MAX));
    }

    /// Counts a scrape that the members of the group were asked for.
    pub(super) fn forward(&self, outcome: ForwardOutcome) {
        self.forwards.add(outcome);
    }

    /// Counts a request that was not answered because of who sent it.
    pub(super) fn denied(&self, why: Denied) {
        self.http_denials.add(why);
    }

    pub(super) fn sd_request(&self, outcome: SdOutcome) {
        self.sd_requests.add(outcome);
    }

    pub(super) fn file_sd_write(&self, outcome: FileSdOutcome) {
        self.file_sd_writes.add(outcome);
    }

    pub(super) fn on_change_run(&self, outcome: RunOutcome) {
        self.on_change_runs.add(outcome);
    }

    /// Counts a claim, or a message that was not looked into.
    pub(super) fn registration(&self, outcome: impl Into<RegistrationOutcome>) {
        self.registrations.add(outcome.into());
    }

    /// Begins a register exchange, handshake included; [`Self::registration_ended`] ends it.
    pub(super) fn registration_began(&self) {
        let before = self.registrations_in_flight.inc();
        self.registrations_in_flight_peak.inner().fetch_max(before + 1, Ordering::Relaxed);
    }

    pub(super) fn registration_ended(&self) {
        self.registrations_in_flight.dec();
    }

    pub(super) fn handshake_refusal(&self, reason: HandshakeFailure) {
        self.handshake_refusals.add(reason);
    }

    pub(super) fn beacon_request(&self, outcome: BeaconOutcome) {
        self.beacon_requests.add(outcome);
    }

    pub(super) fn firewall_block(&self) {
        self.firewall_blocks.inc();
    }

    /// Everything, in the format asked for.
    pub(super) fn encode(&self, state: ScraperState, format: ExpositionFormat) -> String {
        self.state.show(&state);
        self.inbound.show(&state.inbound);
        format.encode(&self.registry)
    }
}

/// One scrape being counted: in flight as long as this lives. Dropped without an [`end`](Self::end), it counts as
/// [`ScrapeOutcome::ClientGone`].
#[derive(Debug)]
pub(super) struct ScrapeRecord {
    metrics: Arc<ScraperMetrics>,
    started: Instant,
    outcome: ScrapeOutcome,
}

impl ScrapeRecord {
    pub(super) fn bytes(&self, len: u64) {
        self.metrics.scrape_body.inc_by(len);
    }

    pub(super) fn end(&mut self, outcome: ScrapeOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for ScrapeRecord {
    fn drop(&mut self) {
        self.metrics.scrapes_in_flight.dec();
        self.metrics.scrapes.add(self.outcome);
        if self.outcome == ScrapeOutcome::Ok {
            self.metrics.scrape_duration.observe(self.started.elapsed().as_secs_f64());
        }
    }
}

/// The metrics of a [`ScraperState`].
fn state_metrics(r: &mut Registry) -> Readings<ScraperState> {
    let mut state = Readings::<ScraperState>::new();
    state.gauges(
        r,
        ("aliases", "Aliases in the table", "state"),
        &[("active", |s| s.aliases.active as u64), ("lapsed", |s| s.aliases.lapsed as u64)],
    );
    state.gauges(
        r,
        ("links", "Linked peers, nodes among them, by the best path to each", "path"),
        &[("direct", |s| s.links.direct as u64), ("relayed", |s| s.links.relayed as u64)],
    );
    state.counters(
        r,
        ("hole_punches", "Attempts to make a relayed link direct; a failed one leaves it relayed", "outcome"),
        &[("succeeded", |s| s.links.punches_succeeded), ("failed", |s| s.links.punches_failed)],
    );
    state.counters(
        r,
        ("takeovers", "Claims by another key to a held alias", "outcome"),
        &[("granted", |s| s.totals.takeovers), ("refused", |s| s.totals.takeovers_refused)],
    );
    state.gauge(r, "table_loaded", "1 once the table of aliases is loaded", |s| s.loaded.into());
    state.gauge(r, "peers", "Peers that hold an alias", |s| s.aliases.peers as u64);
    state.gauge(r, "beacons", "Beacons of the registration API in the table", |s| s.aliases.beacons as u64);
    let expired = "Beacons that had a lease, and were not registered again in time";
    state.counter(r, "beacons_expired", expired, |s| s.totals.beacons_expired);
    state.gauge(r, "table_bytes", "Bytes of all aliases in /sd, without the address to scrape", |s| s.table_bytes);
    state.gauge(r, "relays", "Relays that this scraper can be reached through", |s| s.links.relays as u64);
    let announced = "Nodes that held our announcement when they were last asked";
    state.gauge(r, "announced_nodes", announced, |s| s.holders as u64);
    let told_of = "Nodes that this scraper was told of: each should hold our announcement";
    state.gauge(r, "bootstrap_nodes", told_of, |s| s.bootstrap as u64);
    state.counter(r, "leases_lapsed", "Leases that were not renewed in time", |s| s.totals.lapsed);
    state.counter(r, "leases_gone", "Lapsed leases that left the table after the retention", |s| s.totals.gone);
    let failing = "1 while the table cannot be stored: its disk is full, read-only, broken, gone, or ends no write";
    state.gauge(r, "store_failing", failing, |s| s.store_failing.into());
    let failures = "Failed writes of the table to its store";
    state.counter(r, "store_flush_failures", failures, |s| s.totals.store_failures);
    state.counter(r, "registration_log_entries", "Entries written to the registration log", |s| s.logged);
    let lost = "Entries that could not be written to the registration log, as it says itself";
    state.counter(r, "registration_log_lost_entries", lost, |s| s.unlogged);
    let unreadable = "Stored records skipped as unreadable";
    state.counter(r, "store_unreadable_records", unreadable, |s| s.totals.unreadable_records);
    state.counter(r, "store_damaged", "Loads of the store that found aliases lost", |s| s.totals.store_damaged);
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Arc<ScraperMetrics> {
        Arc::new(ScraperMetrics::new(&Refusals::new()))
    }

    #[test]
    fn every_child_is_exported_before_anything_happened() {
        let text = metrics().encode(ScraperState::default(), ExpositionFormat::OpenMetrics);
        for line in [
            "narthex_scrapes_total{outcome=\"too_large\"} 0",
            "narthex_registrations_total{outcome=\"taken\"} 0",
            "narthex_takeovers_total{outcome=\"refused\"} 0",
            "narthex_handshake_refusals_total{reason=\"bad_proof\"} 0",
            "narthex_sd_requests_total{outcome=\"unavailable\"} 0",
            "narthex_file_sd_writes_total{outcome=\"failed\"} 0",
            "narthex_on_change_runs_total{outcome=\"not_started\"} 0",
            "narthex_aliases{state=\"lapsed\"} 0",
            "narthex_links{path=\"relayed\"} 0",
            "narthex_handshakes_in_flight 0",
            "narthex_connections_refused_total{reason=\"address\"} 0",
            "narthex_registrations_in_flight_peak 0",
            "narthex_announced_nodes 0",
            "narthex_scrape_body_bytes_total 0",
            "narthex_firewall_blocks_total 0",
            "narthex_group_members{linked=\"false\"} 0",
            "narthex_group_forwards_total{outcome=\"not_linked\"} 0",
            "narthex_limit_refusals_total{limit=\"max_connections_per_ip\"} 0",
            "narthex_store_flush_failures_total 0",
            "narthex_scrape_duration_seconds_count 0",
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
    fn a_scrape_is_in_flight_until_its_record_is_dropped() {
        let metrics = metrics();
        let has_line =
            |line: &str| metrics.encode(ScraperState::default(), ExpositionFormat::Text).lines().any(|l| l == line);
        let mut whole = metrics.scrape();
        let left = metrics.scrape();
        assert!(has_line("narthex_scrapes_in_flight 2"));
        whole.bytes(3);
        whole.end(ScrapeOutcome::Ok);
        drop((whole, left));
        assert!(has_line("narthex_scrapes_in_flight 0"));
        assert!(has_line("narthex_scrapes_total{outcome=\"ok\"} 1"));
        assert!(has_line("narthex_scrapes_total{outcome=\"client_gone\"} 1"));
        assert!(has_line("narthex_scrape_body_bytes_total 3"));
        assert!(has_line("narthex_scrape_duration_seconds_count 1"));
    }

    #[test]
    fn the_state_is_exported_as_it_was_handed_in() {
        let state = ScraperState {
            loaded: true,
            store_failing: true,
            table_bytes: 13,
            aliases: Counts { active: 5, lapsed: 4, peers: 3, beacons: 2 },
            totals: Totals { takeovers: 6, takeovers_refused: 7, store_failures: 8, ..Totals::default() },
            links: LinkCounts { direct: 2, relayed: 1, relays: 9, punches_succeeded: 10, punches_failed: 11 },
            inbound: InboundCounts {
                handshakes: 9,
                handshakes_peak: 10,
                refused_address: 11,
                ..InboundCounts::default()
            },
            holders: 12,
            bootstrap: 13,
            logged: 14,
            unlogged: 15,
        };
        let text = metrics().encode(state, ExpositionFormat::Text);
        for line in [
            "narthex_table_loaded 1",
            "narthex_store_failing 1",
            "narthex_aliases{state=\"active\"} 5",
            "narthex_aliases{state=\"lapsed\"} 4",
            "narthex_peers 3",
            "narthex_table_bytes 13",
            "narthex_links{path=\"direct\"} 2",
            "narthex_links{path=\"relayed\"} 1",
            "narthex_relays 9",
            "narthex_hole_punches_total{outcome=\"succeeded\"} 10",
            "narthex_hole_punches_total{outcome=\"failed\"} 11",
            "narthex_handshakes_in_flight 9",
            "narthex_handshakes_in_flight_peak 10",
            "narthex_connections_refused_total{reason=\"address\"} 11",
            "narthex_announced_nodes 12",
            "narthex_bootstrap_nodes 13",
            "narthex_takeovers_total{outcome=\"granted\"} 6",
            "narthex_takeovers_total{outcome=\"refused\"} 7",
            "narthex_store_flush_failures_total 8",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
