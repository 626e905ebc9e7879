//! The limits that refuse work, and how often each did: for the metrics, and for the log.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, family::Family};
use tokio::time::Instant;

use super::{LabelValue, label_values, metric::Label};

/// Between two log lines about one limit: strangers could fill the log.
const LOG_EVERY: Duration = Duration::from_secs(60);

label_values! {
    /// A limit that refuses work, by the name of the setting that changes it, which is its flag's with underscores.
    pub(crate) enum Limit {
        ConnectionsPerIp = "max_connections_per_ip",
        MaxAliases = "max_aliases",
        MaxAliasBytes = "max_alias_bytes",
        MaxPeerBytes = "max_peer_bytes",
        MaxTableBytes = "max_table_bytes",
        MaxSdReaders = "max_sd_readers",
        HttpConnections = "max_http_connections",
        HttpConnectionsPerIp = "max_http_connections_per_ip",
    }
}

/// The refusals of every limit since the start.
#[derive(Debug)]
pub(crate) struct Refusals {
    #[cfg(any(feature = "scraper", feature = "node"))]
    family: Family<Label, Counter>,
    limits: Vec<Refused>,
}

/// The refusals of one limit.
#[derive(Debug)]
struct Refused {
    count: Counter,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    last: Option<Instant>,
    /// Refusals since the last line.
    unlogged: u64,
}

impl Refusals {
    pub(crate) fn new() -> Self {
        let family = Family::<Label, Counter>::default();
        let limit = |limit: &Limit| Refused {
            count: family.get_or_create_owned(&[("limit", limit.as_str())]),
            log: Mutex::default(),
        };
        Self {
            limits: Limit::ALL.iter().map(limit).collect(),
            #[cfg(any(feature = "scraper", feature = "node"))]
            family,
        }
    }

    /// Shows the counts as `limit_refusals_total`.
    #[cfg(any(feature = "scraper", feature = "node"))]
    pub(crate) fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        registry.register("limit_refusals", "Work that a limit refused", self.family.clone());
    }

    /// Counts one refusal, and logs the first within a minute. `what` says what was refused, in a text fit for the log.
    pub(crate) fn count(&self, limit: Limit, what: impl Display) {
        let refused = &self.limits[limit.index()];
        refused.count.inc();
        let mut log = refused.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.unlogged += 1;
        if log.last.is_none_or(|last| last.elapsed() > LOG_EVERY) {
            log.last = Some(Instant::now());
            let (count, limit) = (std::mem::take(&mut log.unlogged), limit.setting());
            tracing::warn!(limit, count, last = %what, "a limit refuses work; the next such line in a minute");
        }
    }

    #[cfg(test)]
    pub(crate) fn counted(&self, limit: Limit) -> u64 {
        self.limits[limit.index()].count.get()
    }
}

impl Limit {
    /// The name of the setting, as flags write it.
    pub(crate) fn setting(self) -> String {
        self.as_str().replace('_', "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::check_labels;

    #[test]
    fn each_limit_has_a_label_of_its_own() {
        check_labels::<Limit>();
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_all_counted_and_logged_once_a_minute() {
        let refusals = Refusals::new();
        let unlogged = || refusals.limits[0].log.lock().expect("no panic").unlogged;
        (0..3).for_each(|_| refusals.count(Limit::ConnectionsPerIp, "192.0.2.7"));
        assert_eq!((refusals.counted(Limit::ConnectionsPerIp), unlogged()), (3, 2));
        tokio::time::advance(LOG_EVERY * 2).await;
        refusals.count(Limit::ConnectionsPerIp, "192.0.2.7");
        assert_eq!((refusals.counted(Limit::ConnectionsPerIp), unlogged()), (4, 0));
    }
}
