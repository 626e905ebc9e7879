//! The last scrape of each alias, and its last failure: why a target is down, seen from beside Prometheus.
//!
//! Each alias that was scraped has a record of a fixed size; with its place in the map and its name it takes some 130 bytes, so
//! a full table of 100 000 takes 13 MB. A record goes with its alias.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::broadcast::error::RecvError,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::outcome::ScrapeOutcome;
use crate::{
    identity::PublicKey,
    registry::{EventKind, Registry, RegistryEvent},
    telemetry::LabelValue,
    wire::{Alias, PullReason},
};

/// How often records without an alias are looked for: of scrapes that ended as their alias went.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Why a scrape brought no metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// What happened here, or on the way.
    Here(ScrapeOutcome),
    /// What the peer says of its source.
    Source(PullReason),
}

impl Fault {
    /// What happened, in words.
    pub(super) fn words(self) -> String {
        let words = match self {
            Self::Source(reason) => return reason.words().into_owned(),
            Self::Here(outcome) => outcome,
        };
        match words {
            ScrapeOutcome::NotConnected => "the peer was not connected",
            ScrapeOutcome::Broken => "the link was lost before an answer",
            ScrapeOutcome::Refused => "the peer has no metrics for the alias",
            ScrapeOutcome::Deadline => "the peer did not answer in time",
            ScrapeOutcome::Cut => "the exposition stopped before its end",
            ScrapeOutcome::TooLarge => "the exposition is larger than the scraper hands on",
            ScrapeOutcome::Overloaded => "too many scrapes were under way",
            other => other.as_str(),
        }
        .to_owned()
    }
}

/// A word: `not-connected`, `refused`, `status=401`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The peer's own word for nobody at the exporter's port is the same, and means another thing.
            Self::Here(ScrapeOutcome::Refused) => f.write_str("not-served"),
            Self::Here(outcome) => f.write_str(&outcome.as_str().replace('_', "-")),
            Self::Source(reason) => reason.fmt(f),
        }
    }
}

/// The last scrape of an alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastScrape {
    began_ms: u64,
    took_us: u32,
    /// Bytes that were handed on, as they came.
    pub(super) bytes: u64,
    /// True if it brought an exposition, whole.
    pub(super) ok: bool,
    failed: Option<(Fault, u64)>,
}

impl LastScrape {
    pub(super) fn began_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.began_ms)
    }

    pub(super) fn took(&self) -> Duration {
        Duration::from_micros(self.took_us.into())
    }

    /// The last failure, which may be of an earlier scrape, and when that began.
    pub(super) fn failed(&self) -> Option<(Fault, SystemTime)> {
        self.failed.map(|(fault, at)| (fault, UNIX_EPOCH + Duration::from_millis(at)))
    }
}

/// The records. Cheap to clone.
#[derive(Clone)]
pub(super) struct LastScrapes(Arc<Inner>);

struct Inner {
    registry: Registry,
    records: Mutex<HashMap<Alias, LastScrape>>,
}

/// A scrape under way.
#[derive(Clone, Copy)]
pub(super) struct Began {
    at: SystemTime,
    started: Instant,
}

impl Began {
    pub(super) fn now() -> Self {
        Self { at: SystemTime::now(), started: Instant::now() }
    }
}

impl LastScrapes {
    pub(super) fn new(registry: Registry) -> Self {
        Self(Arc::new(Inner { registry, records: Mutex::default() }))
    }

    pub(super) fn of(&self, alias: &Alias) -> Option<LastScrape> {
        self.records().get(alias).copied()
    }

    /// Notes the end of a scrape of an alias that `peer` was asked for. If it is that peer's no more it is not noted.
    pub(super) fn note(&self, alias: &Alias, peer: &PublicKey, began: Began, bytes: u64, fault: Option<Fault>) {
        if !matches!(self.0.registry.lookup(alias.as_str()), Ok(Some(lease)) if lease.peer == *peer) {
            return;
        }
        let began_ms = began.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let began_ms = u64::try_from(began_ms).unwrap_or(u64::MAX);
        let took_us = u32::try_from(began.started.elapsed().as_micros()).unwrap_or(u32::MAX);
        let mut records = self.records();
        let before = records.get(alias).and_then(|before| before.failed);
        let failed = fault.map(|fault| (fault, began_ms)).or(before);
        records.insert(alias.clone(), LastScrape { began_ms, took_us, bytes, ok: fault.is_none(), failed });
    }

    /// Drops the records of aliases that go, until `stop` fires.
    pub(super) async fn keep(self, stop: CancellationToken) {
        let mut events = self.0.registry.events();
        let mut sweep = time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = sweep.tick() => self.sweep(),
                event = events.recv() => match event {
                    Ok(RegistryEvent { alias, kind: EventKind::Released | EventKind::Gone | EventKind::TakenOver { .. }, .. }) => {
                        self.records().remove(&alias);
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => self.sweep(),
                    Err(RecvError::Closed) => return stop.cancelled().await,
                },
            }
        }
    }

    /// Drops the records of aliases that have gone.
    fn sweep(&self) {
        let Ok(table) = self.0.registry.snapshot() else { return };
        let held: HashSet<&str> = table.contents.leases.iter().map(|lease| lease.alias.as_str()).collect();
        let mut records = self.records();
        records.retain(|alias, _| held.contains(alias.as_str()));
        records.shrink_to_fit();
    }

    fn records(&self) -> MutexGuard<'_, HashMap<Alias, LastScrape>> {
        self.0.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_a_small_fixed_size() {
        assert!(size_of::<(Alias, LastScrape)>() <= 72, "{}", size_of::<(Alias, LastScrape)>());
    }

    #[test]
    fn each_fault_is_one_word_and_has_words() {
        let here = ScrapeOutcome::ALL.iter().map(|outcome| Fault::Here(*outcome));
        for fault in here.chain([Fault::Source(PullReason::Refused)]) {
            assert!(!fault.to_string().contains(['_', ' ']) && !fault.words().is_empty(), "{fault:?}");
        }
        assert_ne!(Fault::Here(ScrapeOutcome::Refused).to_string(), Fault::Source(PullReason::Refused).to_string());
    }
}
