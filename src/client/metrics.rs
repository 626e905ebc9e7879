//! A client's own metrics, `narthex_client_*`: its events, counted.
//!
//! The metrics are a [`Source`], so that a client can register them as one more target.

use std::time::SystemTime;

use futures::future::{self, BoxFuture, FutureExt};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{EventKind, Exposition, PullFailure, PullRequest, RegisterError, Source, SourceError};
use crate::{
    identity::PublicKey,
    network::LinkPath,
    telemetry::{
        Counters, ExpositionFormat, SCRAPE_BUCKETS, build_info, bytes, counter, gauge, label_values, process, unix_time,
    },
    wire::AliasRefusal,
};

label_values! {
    /// What became of a registration.
    enum Registration {
        Updated = "updated",
        Renewed = "renewed",
        Released = "released",
        Taken = "taken",
        Invalid = "invalid",
        Duplicate = "duplicate",
        Full = "full",
        OutOfScope = "out_of_scope",
        Handshake = "handshake_refused",
        KeyInUse = "key_in_use",
        SlowDown = "slow_down",
        Unavailable = "unavailable",
        Malformed = "malformed",
        Timeout = "timeout",
        NotAScraper = "not_a_scraper",
        Broken = "broken",
    }

    /// How a pull ended.
    enum PullOutcome {
        Ok = "ok",
        SourceFailed = "source_failed",
        Deadline = "deadline",
        Panicked = "panicked",
        TooLarge = "too_large",
        Removed = "removed",
        Abandoned = "abandoned",
    }
}

impl From<&RegisterError> for Registration {
    fn from(error: &RegisterError) -> Self {
        match error {
            RegisterError::Handshake(_) => Self::Handshake,
            RegisterError::Alias { refusal: AliasRefusal::Taken, .. } => Self::Taken,
            RegisterError::Alias { refusal: AliasRefusal::Invalid, .. } => Self::Invalid,
            RegisterError::Alias { refusal: AliasRefusal::Duplicate, .. } => Self::Duplicate,
            RegisterError::Alias { refusal: AliasRefusal::Full, .. } => Self::Full,
            RegisterError::Alias { refusal: AliasRefusal::OutOfScope, .. } => Self::OutOfScope,
            RegisterError::KeyInUse => Self::KeyInUse,
            RegisterError::SlowDown => Self::SlowDown,
            RegisterError::Unavailable => Self::Unavailable,
            RegisterError::Malformed => Self::Malformed,
            RegisterError::Timeout(_) => Self::Timeout,
            RegisterError::NotAScraper => Self::NotAScraper,
            RegisterError::Broken(_) => Self::Broken,
        }
    }
}

impl From<&PullFailure> for PullOutcome {
    fn from(failure: &PullFailure) -> Self {
        match failure {
            PullFailure::Source(SourceError::Failed(_)) => Self::SourceFailed,
            PullFailure::Source(SourceError::Deadline) => Self::Deadline,
            PullFailure::Source(SourceError::Panicked) => Self::Panicked,
            PullFailure::TooLarge { .. } => Self::TooLarge,
            PullFailure::Removed => Self::Removed,
            PullFailure::Abandoned => Self::Abandoned,
        }
    }
}

#[derive(Debug)]
pub(super) struct ClientMetrics {
    registry: Registry,
    links: Family<[(&'static str, String); 1], Gauge>,
    relayed: Family<[(&'static str, String); 1], Gauge>,
    learned: Gauge,
    links_lost: Counter,
    link_failures: Counter,
    registrations: Counters<Registration>,
    pulls: Counters<PullOutcome>,
    pulls_in_flight: Gauge,
    pull_duration: Histogram,
    pull_body: Counter,
    compression_saved: Counter,
    firewall_blocks: Counter,
    targets: Gauge,
    target_problems: Gauge,
}

impl ClientMetrics {
    /// Every metric at 0, of a client that starts now and has these scrapers.
    pub(super) fn new(scrapers: impl IntoIterator<Item = PublicKey>) -> Self {
        let mut all = Registry::default();
        process::register(&mut all);
        let registry = all.sub_registry_with_prefix("narthex_client");
        build_info(registry);
        unix_time(registry, "start_time", "Start of the client, in Unix time", SystemTime::now());
        let links = Family::<[(&'static str, String); 1], Gauge>::default();
        registry.register("link_up", "1 while there is a link to the scraper", links.clone());
        let relayed = Family::<[(&'static str, String); 1], Gauge>::default();
        registry.register("link_relayed", "1 while that link goes through a relay", relayed.clone());
        let pull_duration = Histogram::new(SCRAPE_BUCKETS);
        registry.register_with_unit(
            "pull_duration",
            "Time from a scraper's request to the end of the exposition, of pulls that were ok",
            Unit::Seconds,
            pull_duration.clone(),
        );
        let r = registry;
        let metrics = Self {
            links,
            relayed,
            learned: gauge(
                r,
                "learned_scrapers",
                "Scrapers that others named as members of their group, and the client links",
            ),
            links_lost: counter(r, "links_lost", "Links to scrapers that were lost"),
            link_failures: counter(r, "link_failures", "Failed attempts at a link to a scraper"),
            registrations: Counters::new(
                r,
                "registrations",
                "Answers to claims, one for each alias; failures other than an alias's own count whole messages",
                "outcome",
            ),
            pulls: Counters::new(r, "pulls", "Pulls by scrapers that ended", "outcome"),
            pulls_in_flight: gauge(r, "pulls_in_flight", "Pulls being answered now"),
            pull_duration,
            pull_body: bytes(r, "pull_body", "Bytes of whole expositions, as they went over the link"),
            compression_saved: bytes(r, "compression_saved", "Bytes that compression on the link spared it"),
            firewall_blocks: counter(r, "firewall_blocks", "Streams of strangers that were refused unread"),
            targets: gauge(r, "targets", "Targets that the client has"),
            target_problems: gauge(
                r,
                "target_problems",
                "What an agent cannot use of its targets as they are written: broken files, targets left out",
            ),
            registry: all,
        };
        for scraper in scrapers {
            metrics.link(scraper, None);
        }
        metrics
    }

    pub(super) fn observe(&self, event: &EventKind) {
        match event {
            EventKind::LinkUp { scraper, path } => self.link(*scraper, Some(*path)),
            EventKind::PathChanged { scraper, path } => self.link(*scraper, Some(*path)),
            EventKind::LinkDown { scraper } => {
                self.link(*scraper, None);
                self.links_lost.inc();
            }
            EventKind::LinkFailed { .. } => {
                self.link_failures.inc();
            }
            EventKind::Registered { updated: true, .. } => self.registrations.add(Registration::Updated),
            EventKind::Registered { updated: false, .. } => self.registrations.add(Registration::Renewed),
            EventKind::RegisterFailed { error, .. } => self.registrations.add((&**error).into()),
            EventKind::Released { .. } => self.registrations.add(Registration::Released),
            EventKind::PullStarted { .. } => {
                self.pulls_in_flight.inc();
            }
            EventKind::PullSucceeded { bytes, uncompressed_bytes, took, .. } => {
                self.pull_ended(PullOutcome::Ok);
                self.pull_duration.observe(took.as_secs_f64());
                self.pull_body.inc_by(*bytes);
                self.compression_saved.inc_by(uncompressed_bytes.saturating_sub(*bytes));
            }
            EventKind::PullFailed { error, .. } => self.pull_ended((&**error).into()),
            EventKind::ScraperLearned { scraper } => {
                self.link(*scraper, None);
                self.learned.inc();
            }
            EventKind::ScraperLetGo { scraper } => {
                let label = [("scraper", scraper.to_string())];
                self.links.remove(&label);
                self.relayed.remove(&label);
                self.learned.dec();
            }
            EventKind::KeyContested { .. } => {}
            EventKind::FirewallBlocked { .. } => {
                self.firewall_blocks.inc();
            }
        }
    }

    pub(super) fn set_targets(&self, count: usize) {
        self.targets.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets the number of problems in the targets as they are written.
    pub(super) fn set_target_problems(&self, count: usize) {
        self.target_problems.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The scraper is one of the client's own, given or learned: no stranger can create a series.
    fn link(&self, scraper: PublicKey, path: Option<LinkPath>) {
        let label = [("scraper", scraper.to_string())];
        self.links.get_or_create(&label).set(i64::from(path.is_some()));
        self.relayed.get_or_create(&label).set(i64::from(path == Some(LinkPath::Relayed)));
    }

    fn pull_ended(&self, outcome: PullOutcome) {
        self.pulls_in_flight.dec();
        self.pulls.add(outcome);
    }
}

impl Source for ClientMetrics {
    fn pull(&self, request: PullRequest) -> BoxFuture<'_, Result<Exposition, SourceError>> {
        let format = ExpositionFormat::asked_for(&request.headers);
        future::ready(Ok(Exposition::new(format.content_type(), format.encode(&self.registry)))).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{identity::KeyPair, telemetry::check_labels};

    fn scraper() -> PublicKey {
        KeyPair::from_seed(&[1; 32]).public()
    }

    #[track_caller]
    fn has_lines(metrics: &ClientMetrics, lines: &[&str]) {
        let text = ExpositionFormat::Text.encode(&metrics.registry);
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn every_series_is_there_from_the_start() {
        check_labels::<Registration>();
        check_labels::<PullOutcome>();
        let up = format!("narthex_client_link_up{{scraper=\"{}\"}} 0", scraper());
        has_lines(
            &ClientMetrics::new([scraper()]),
            &[
                &up,
                "narthex_client_learned_scrapers 0",
                "narthex_client_links_lost_total 0",
                "narthex_client_link_failures_total 0",
                "narthex_client_registrations_total{outcome=\"handshake_refused\"} 0",
                "narthex_client_pulls_total{outcome=\"ok\"} 0",
                "narthex_client_pull_duration_seconds_count 0",
                "narthex_client_pull_body_bytes_total 0",
                "narthex_client_compression_saved_bytes_total 0",
                "narthex_client_firewall_blocks_total 0",
                "narthex_client_targets 0",
                "narthex_client_target_problems 0",
            ],
        );
    }

    #[test]
    fn events_are_counted_and_a_pull_is_in_flight_until_it_ends() {
        let metrics = ClientMetrics::new([scraper()]);
        let alias = || "web-1".parse().unwrap();
        let started = || EventKind::PullStarted { scraper: scraper(), alias: alias() };
        let failed = |error| EventKind::PullFailed { scraper: scraper(), alias: alias(), error: Arc::new(error) };
        let refused = |error| EventKind::RegisterFailed {
            scraper: scraper(),
            error: Arc::new(error),
            retry_in: Duration::from_secs(1),
        };
        for event in [
            EventKind::LinkUp { scraper: scraper(), path: LinkPath::Relayed },
            EventKind::Registered { scraper: scraper(), alias: alias(), updated: true },
            EventKind::Registered { scraper: scraper(), alias: alias(), updated: false },
            refused(RegisterError::Alias { alias: alias(), refusal: AliasRefusal::Taken }),
            refused(RegisterError::SlowDown),
            started(),
            started(),
            started(),
            EventKind::PullSucceeded {
                scraper: scraper(),
                alias: alias(),
                bytes: 10,
                uncompressed_bytes: 100,
                took: Duration::from_millis(3),
            },
            failed(PullFailure::Source(SourceError::Deadline)),
            EventKind::FirewallBlocked { peer: scraper() },
        ] {
            metrics.observe(&event);
        }
        metrics.set_targets(7);
        let up = format!("narthex_client_link_up{{scraper=\"{}\"}} 1", scraper());
        has_lines(
            &metrics,
            &[
                &up,
                "narthex_client_registrations_total{outcome=\"updated\"} 1",
                "narthex_client_registrations_total{outcome=\"renewed\"} 1",
                "narthex_client_registrations_total{outcome=\"taken\"} 1",
                "narthex_client_registrations_total{outcome=\"slow_down\"} 1",
                "narthex_client_pulls_total{outcome=\"ok\"} 1",
                "narthex_client_pulls_total{outcome=\"deadline\"} 1",
                "narthex_client_pulls_in_flight 1",
                "narthex_client_pull_duration_seconds_count 1",
                "narthex_client_pull_body_bytes_total 10",
                "narthex_client_compression_saved_bytes_total 90",
                "narthex_client_firewall_blocks_total 1",
                "narthex_client_targets 7",
            ],
        );
        let learned = KeyPair::from_seed(&[2; 32]).public();
        metrics.observe(&EventKind::ScraperLearned { scraper: learned });
        let series = format!("narthex_client_link_up{{scraper=\"{learned}\"}} 0");
        has_lines(&metrics, &[&series, "narthex_client_learned_scrapers 1"]);
        metrics.observe(&EventKind::ScraperLetGo { scraper: learned });
        has_lines(&metrics, &["narthex_client_learned_scrapers 0"]);
        assert!(
            !ExpositionFormat::Text.encode(&metrics.registry).contains(&learned.to_string()),
            "its series are gone"
        );

        metrics.observe(&EventKind::LinkDown { scraper: scraper() });
        let down = format!("narthex_client_link_up{{scraper=\"{}\"}} 0", scraper());
        has_lines(&metrics, &[&down, "narthex_client_links_lost_total 1"]);
    }
}
